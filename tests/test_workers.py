"""Processes that read images: what fails in them is named, and they end with their training."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch._C import _set_worker_signal_handlers
from torch.utils.data import Dataset, _utils

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets.reading import decode
from attention_ablation.feed.workers import _begin, _started, deaths_as_errors, worker_loader
from attention_ablation.study.expand import Plan
from tests.own_images import file_source, own_run
from tests.test_processes import Launch, place
from tests.test_training import spec_file

# The command, whose second worker waits for ever in its second batch; its first one then does this.
FAILING = """
import os, pathlib, signal, time
from torch.utils.data import _utils, get_worker_info
from attention_ablation.cli import main as cli
from attention_ablation.datasets.reading import decode

plain, read, fifo = decode.read_image, [], pathlib.Path(os.environ["FIFO"])
waits = fifo.with_name("waits")

def read_image(path):
    read.append(path)
    if len(read) > {batch}:
        if get_worker_info().id:
            waits.touch()
            fifo.read_text()
        while not waits.exists():
            time.sleep(0.01)
        {then}
    return plain(path)

decode.read_image = read_image
_utils.MP_STATUS_CHECK_INTERVAL = 0.2  # s, that torch gives a worker to end
cli.script()
"""
BATCH = 2


class Training:
    """A training on image files by two workers that fails, or is killed, as `then` says."""

    def __init__(self, tiny: Plan, own: Path, then: str) -> None:
        spec = spec_file(own_run(tiny, batch_size=BATCH))
        self.folder, fifo = spec.parent, own / "fifo"
        os.mkfifo(fifo)
        self.writer = os.open(fifo, os.O_RDWR)  # which waits for no reader
        command = ["train", str(spec), "--datasets", str(own), "--workers", "2"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAILING.format(batch=BATCH, then=then), *command],
            env=os.environ | {"FIFO": str(fifo)}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ends(self) -> str:
        """Wait until it has ended and nobody holds its folder; return what it said."""
        try:
            said = self.process.communicate(timeout=60)[1]
            deadline = time.monotonic() + 5
            with (self.folder / ".lock").open() as lock:
                while not _free(lock.fileno()):
                    assert time.monotonic() < deadline, "a worker holds the lock"
                    time.sleep(0.05)
        finally:
            self.process.kill()
            os.close(self.writer)  # the worker would wait for ever
        return said

    @property
    def reason(self) -> str:
        text = (self.folder / "failure.json").read_text("utf-8")
        return str(json.loads(text)["reason"])


def _free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Each of these three starts a training as a user does: 3 s of imports.
def test_a_training_ends_when_an_image_fails_whatever_the_error_and_names_it(
    tiny: Plan, own: Path
) -> None:
    training = Training(tiny, own, then="raise Exception('odd pixels')")
    said = training.ends()
    assert training.process.returncode == 2, said
    traceback, sentence = said.split("\nattention-ablation: ")
    assert traceback.startswith("Traceback")
    assert traceback.endswith("\nException: odd pixels")
    assert sentence.startswith(f"{own}/own/train/n")
    assert "JPEG: reading it failed with Exception: odd pixels; the log has" in sentence
    assert "Replace" not in said
    assert training.reason.startswith(f"{own}/own/train/n")


def test_a_training_ends_when_a_worker_is_killed(tiny: Plan, own: Path) -> None:
    training = Training(tiny, own, then="os.kill(os.getpid(), signal.SIGKILL)")
    said = training.ends()
    assert training.process.returncode == 2, said
    assert "A process that reads images was killed. " in said
    assert "Traceback" not in said
    assert "If memory ran out, give the job more or fewer --workers" in training.reason


def test_a_killed_worker_is_named_also_where_torch_tells_of_it_while_we_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: float) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    class Killed:
        was_killed = True

    def break_connection(worker: Killed) -> None:
        _started.add(worker)
        raise EOFError

    killed = Killed()
    monkeypatch.setattr("attention_ablation.feed.workers.time.sleep", interrupted)
    with pytest.raises(UserError, match="that reads images was killed"), deaths_as_errors():
        break_connection(killed)
    _started.clear()


def test_a_worker_that_waits_for_a_file_ends_with_its_killed_training(
    tiny: Plan, own: Path
) -> None:
    training = Training(tiny, own, then="os.kill(os.getppid(), signal.SIGKILL)")
    said = training.ends()
    assert training.process.returncode == -signal.SIGKILL, said


WAITED_FOR = """
import sys, threading, time
from attention_ablation.cli import main as cli

def main():
    print("printed")
    threading.Thread(target=time.sleep, args=[1000]).start()
    {ends}

cli.main = main
cli.script()
"""


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ("raise ValueError('odd')", 1, "Traceback (most recent call last):"),
        ("sys.exit(143)", 143, ""),
        ("raise SystemExit", 0, ""),
        ("raise KeyboardInterrupt", 130, ""),
        ("return 2", 2, ""),
    ],
)
def test_a_command_waits_for_nothing_however_it_ends(ends: str, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITED_FOR.format(ends=ends)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "printed\n")
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == bool(said)


# Without the command, which leaves by itself: a worker waits, the other raises an error.
NOT_A_COMMAND = """
import sys, time, torch
from torch.utils.data import Dataset, _utils, get_worker_info
from attention_ablation.feed.workers import worker_loader

class Images(Dataset):
    def __getitems__(self, keys):
        if get_worker_info().id:
            time.sleep(1000)
        raise ValueError("odd")

_utils.MP_STATUS_CHECK_INTERVAL = 0.2
try:
    next(iter(worker_loader(Images(), [[0], [1]], 2)))
except ValueError as error:
    kept = error  # with the loader
    sys.exit(3)
"""


def test_a_program_of_a_users_own_ends_although_a_worker_waits() -> None:
    command = [sys.executable, "-c", NOT_A_COMMAND]
    assert subprocess.run(command, timeout=60, check=False).returncode == 3


def test_a_worker_whose_parent_is_gone_before_it_began_ends_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        _begin(os.getpid(), 0)  # its parent is another process
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_signal_to_stop_that_meets_a_worker_at_its_very_start_is_the_trainings_alone(
    tiny: Plan, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def met() -> None:
        _set_worker_signal_handlers()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_utils.signal_handling, "_set_worker_signal_handlers", met)
    source = file_source(own_run(tiny), own, workers=1)
    assert len(list(source.training(1, 0))) == 3
    source.close()


class Slow(Dataset[int]):
    def __getitems__(self, keys: list[int]) -> list[int]:
        time.sleep(1000 if keys[0] == 1 else 0.3)  # the other has then begun
        return keys


def test_a_worker_that_torch_ends_is_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)

    def fails() -> None:
        batches = iter(worker_loader(Slow(), [[0], [1]], 2))
        next(batches)
        batches._shutdown_workers()  # type: ignore[attr-defined]
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"), deaths_as_errors():
        fails()


@pytest.mark.parametrize("times", [1, 2])
def test_a_death_is_told_of_in_every_training_of_a_process_and_in_no_other(times: int) -> None:
    def dies() -> None:
        batches = iter(worker_loader(Slow(), [[0], [1]], 2))
        next(batches)
        os.kill(batches._workers[1].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        next(batches)

    for _ in range(times):
        with pytest.raises(UserError, match="was killed"), deaths_as_errors():
            dies()
        assert callable(signal.getsignal(signal.SIGCHLD))  # torch sets it once
    with pytest.raises(ValueError, match="odd"), deaths_as_errors():
        raise ValueError("odd")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_want_of_memory_for_a_file_becomes_a_sentence(
    tiny: Plan,
    own: Path,
    workers: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bomb(path: Path) -> object:
        raise MemoryError

    monkeypatch.setattr(decode, "read_image", bomb)
    spec = spec_file(own_run(tiny))
    assert main(["train", str(spec), "--datasets", str(own), "--workers", workers]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"attention-ablation: {own}/own/train/n")
    assert error.endswith("JPEG: memory does not suffice to read it; give the job more.\n")
    assert error.count("\n") == 1


def test_processes_of_torchrun_end_when_a_worker_of_one_fails(tiny: Plan, own: Path) -> None:
    spec = place(own_run(tiny, epochs=4), own)
    text = Launch(spec, own, FAIL_IN_WORKER="2").output(fails=True)
    assert "JPEG: reading it failed with Exception: odd pixels" in text
    reason = json.loads((spec.parent / "failure.json").read_text("utf-8"))["reason"]
    assert "JPEG: reading it failed with Exception: odd pixels" in reason
