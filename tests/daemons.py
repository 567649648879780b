"""Daemons of a scheduler that the tests bring up on this machine, and the scheduler's commands."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATH = os.environ["PATH"] + ":/usr/sbin"


class Daemons:
    """Daemons whose files are all in one folder, `state`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, *names: str) -> None:
        """Kill what an earlier run of the tests has left, and make the folder anew."""
        for pid in leftovers(self.state, *names):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.state, ignore_errors=True)
        (self.state / "log").mkdir(parents=True)
        (self.state / "owner").write_text(str(os.getpid()))

    def start(self, name: str, *options: str) -> None:
        """Start a daemon, in the foreground of a process of its own."""
        program = shutil.which(name, path=PATH)
        assert program
        with (self.state / "log" / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [program, *options], stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, name: str) -> None:
        """Kill a daemon as a power cut would; jobs that run go on."""
        process = self.daemons.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def until(
        self, holds: Callable[[], object], what: str, seconds: float = 300, pause: float = 0.2
    ) -> None:
        """Wait until `holds()`, asking every `pause` seconds.

        Raises TimeoutError that names `what` was awaited.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                logs = [path.read_text()[-2000:] for path in (self.state / "log").glob("*.log")]
                raise TimeoutError(f"waited {seconds} s for {what}\n" + "\n".join(logs))
            time.sleep(pause)


def command(*arguments: str, check: bool = True) -> str:
    """Run one of the scheduler's commands and return what it printed."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def missing(*names: str) -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in names if shutil.which(name, path=PATH) is None]


def running(*names: str) -> list[int]:
    """Return the processes of these daemons on this machine."""
    done = subprocess.run(
        ["pgrep", "-x", "|".join(names)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in done.stdout.split()]


def leftovers(state: Path, *names: str) -> list[int]:
    """Return the daemons of an earlier run of the tests that was itself killed."""
    owner = state / "owner"
    if not owner.exists() or Path("/proc", owner.read_text()).exists():
        return []
    texts = [file.read_text().strip() for file in state.rglob("*.pid")]
    return [int(text) for text in texts if text and int(text) in running(*names)]
