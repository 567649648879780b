"""A command as a forked process that can be killed: where it is, and with writes that take a while.

Forked, it is spared the seconds of importing torch.
"""

import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import IO, Any

from attention_ablation.base import io
from attention_ablation.cli import main as cli
from attention_ablation.training import checkpoint, run
from attention_ablation.training.detect import Detection
from attention_ablation.training.loop import Loop

PHASES = ("start", "steps", "checkpoint", "evaluation", "end", "write")
WORKER = "SIGKILL to a worker"
SLOW = 0.03  # s, at most, for each part of a write


class Child:
    """A forked process, in a group of its own, that prepares itself and runs a command."""

    def __init__(self, command: list[str], log: Path, prepare: Callable[[mmap.mmap], None]) -> None:
        self.shared = mmap.mmap(-1, 1)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(output, 1)
                os.dup2(output, 2)
                mark_phases(self.shared)
                prepare(self.shared)
                sys.argv = ["attention-ablation", *command]
                cli.script()
            except KeyboardInterrupt:  # of a signal that came before it began
                os._exit(128 + signal.SIGINT)
            finally:
                os._exit(99)
        os.setpgid(self.pid, self.pid)  # whoever is first
        self.code: int | None = None

    @property
    def phase(self) -> str:
        """Where it is; a write within another phase, such as a checkpoint's, counts to that."""
        return PHASES[self.shared[0]]

    def ended(self) -> bool:
        """Whether it has ended; `code` is then its exit code."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is true, for so many seconds at most; return whether it is."""
        deadline = time.monotonic() + seconds
        while not (done := until()) and time.monotonic() < deadline:
            time.sleep(0.0005)
        return done

    def gone(self) -> bool:
        """Whether no process of the group is left."""
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        return False

    def end(self, how: str, to_all: bool) -> bool:
        """Send a signal; return whether there was a process to send it to."""
        if self.ended():
            return False
        if how != WORKER:
            (os.killpg if to_all else os.kill)(self.pid, getattr(signal, how))
            return True
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("utf-8").split()
        if children:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(int(children[-1]), signal.SIGKILL)
                return True
        return False


def mark_phases(shared: mmap.mmap) -> None:
    """Let a training write where it is."""
    for owner, name, phase in (
        (Loop, "_train", "steps"),
        (checkpoint, "save", "checkpoint"),
        (Loop, "_evaluate", "evaluation"),
        (Detection, "conclude", "end"),
        (checkpoint, "save_weights", "end"),
        (run, "finish", "end"),
    ):
        setattr(owner, name, marked(getattr(owner, name), shared, PHASES.index(phase)))


def marked(plain: Callable[..., Any], shared: mmap.mmap, number: int) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        before, shared[0] = shared[0], number
        try:
            return plain(*arguments)
        finally:
            shared[0] = before

    return call


def die_at_write(number: int, _: object) -> None:
    """Let this process kill itself before it opens, renames or removes a file for that time."""
    seen = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and arguments[2] & os.O_CREAT
        if writes or event in ("os.rename", "os.remove"):
            seen.append(event)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def slow_writes(random: Random, shared: mmap.mmap) -> None:
    """Make every write take a while, with half of the content on the disk in between."""
    start, writing = PHASES.index("start"), PHASES.index("write")

    def pause() -> None:
        time.sleep(random.random() * SLOW)

    class Halves:
        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Halves":
            return self

        def __exit__(self, *_: object) -> None:  # it has its name by then
            self.file.close()
            if shared[0] == writing:
                shared[0] = start

        def write(self, content: bytes) -> None:
            pause()
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            pause()
            self.file.write(content[len(content) // 2 :])

    def slowed(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            pause()
            return plain(*arguments, **options)

        return call

    def opened(descriptor: int, mode: str, **options: Any) -> Any:
        file = open(descriptor, mode, **options)  # noqa: SIM115  (its caller closes it)
        if mode != "wb":
            return file
        if shared[0] == start:
            shared[0] = writing
        return Halves(file)

    io.open = opened  # type: ignore[attr-defined]  # all files are written by that module
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        setattr(owner, name, slowed(getattr(owner, name)))
