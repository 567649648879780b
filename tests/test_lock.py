"""A run's lock: who has it, what is left of it, and that it dies with its holder."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.runs.folder import read_outcome
from attention_ablation.runs.lock import Lock, lock_run, read_lock
from attention_ablation.study.expand import Plan
from tests.run_folders import CBAM

# A trainer with a worker that never ends by itself.
WITH_A_WORKER = """
import os, sys, time
from pathlib import Path
from attention_ablation.runs.lock import lock_run
with lock_run(Path(sys.argv[1])):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(600)
"""


def test_a_lock_names_the_process_and_no_machine_and_is_left_empty(tmp_path: Path) -> None:
    with lock_run(tmp_path):
        text = (tmp_path / ".lock").read_text()
        assert text == f"process {os.getpid()}\n"
        assert socket.gethostname() not in text
        assert read_lock(tmp_path) == Lock(holder=f"process {os.getpid()}")
    assert (tmp_path / ".lock").read_text() == ""
    assert read_lock(tmp_path) == Lock()
    with pytest.raises(KeyboardInterrupt), lock_run(tmp_path):
        raise KeyboardInterrupt
    assert read_lock(tmp_path) == Lock()


def test_a_worker_that_outlives_its_killed_trainer_locks_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_A_WORKER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    worker = int(process.stdout.readline())
    try:
        assert read_lock(tmp_path).holder == f"process {process.pid}"
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it is there
        deadline = time.monotonic() + 60  # until it has run what follows a fork
        while read_lock(tmp_path).holder and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lock(tmp_path) == Lock(lost=f"process {process.pid}")
        with lock_run(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_a_process_that_was_killed_is_said_to_have_been(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.runs_folder / tiny.row_runs("table3", CBAM)[0].path
    folder.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_A_WORKER, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    os.kill(int(process.stdout.readline()), signal.SIGKILL)  # its worker
    assert read_outcome(folder).status == "running"
    process.kill()
    process.communicate()
    said = "its process was ended from outside, by a signal or for want of memory"
    assert main(["status"]) == 0
    assert f"interrupted:\n  {folder}: 0 % of its steps saved; {said}\n" in capsys.readouterr().out
    assert main(["render", "runs", "table3"]) == 0
    assert f"n = 0 (interrupted: {said})" in (tiny.folder / "tables/table3.md").read_text()
    (folder / ".lock").write_text("")  # as one leaves it that ends by itself
    assert read_outcome(folder).status == "missing"


def test_without_locks_nothing_is_trained_and_status_goes_on(
    tiny: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    folder = tiny.runs_folder / next(iter(tiny.runs))
    folder.mkdir(parents=True)
    (folder / ".lock").write_text("process 1\n")
    monkeypatch.setattr(fcntl, "flock", none)
    assert main(["status"]) == 0
    assert "table3" in capsys.readouterr().out
    with pytest.raises(UserError, match="this file system cannot lock files"), lock_run(folder):
        pass


def test_a_lock_that_is_no_file_is_refused_and_status_goes_on(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    (tmp_path / ".lock").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"\.lock: it cannot be written"), lock_run(tmp_path):
        pass
    assert elsewhere.read_text() == "kept"
    assert read_lock(tmp_path) == Lock()
