"""The live view of runs, on folders as trainings leave them while they run."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attention_ablation.cli.main import main
from attention_ablation.runs.lock import lock_run
from attention_ablation.runs.watch import read_progress
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan
from tests.run_folders import CBAM, PARALLEL, ROWS, SE, SEEDS, finished

HISTORY = """epoch,train_loss,validation_top1_error,seconds,images_per_second
1,2.5,90.25,10,1500
2,1.25,80.5,30,500
3,1.125,,20,1000
"""


def begun(plan: Plan, run: Run, history: str = HISTORY) -> Path:
    """Write the folder of a run under way."""
    folder = plan.runs_folder / run.path
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text(history)
    return folder


@pytest.fixture
def under_way(tiny: Plan) -> Iterator[Plan]:
    """Twelve runs: three completed, one failed, one that this process trains, seven missing."""
    for run in tiny.row_runs("table3", CBAM):
        finished(tiny, run, 20.0)
    failed = begun(tiny, tiny.row_runs("table3", PARALLEL)[1])
    (failed / "failure.json").write_text('{"status": "failed", "reason": "no such gate"}')
    first_epoch = HISTORY.split("2,", 1)[0]
    with lock_run(begun(tiny, tiny.row_runs("table3", SE)[0], first_epoch)):
        yield tiny


def test_time_left_is_the_epochs_left_at_the_runs_own_pace(tiny: Plan) -> None:
    run = tiny.row_runs("table3", SE)[0]
    recipe = run.spec.recipe.model_copy(update={"epochs": 10})
    run = Run(seed=0, spec=run.spec.model_copy(update={"recipe": recipe}))
    folder = begun(tiny, run)
    os.utime(folder / "history.csv", (1000, 1000))
    progress = read_progress(folder, run, now=1005)
    assert progress
    assert (progress.epoch, progress.loss, progress.images_per_second) == (3, 1.125, 1000)
    assert progress.validation == "80.5 %"  # the third epoch was not evaluated
    assert progress.seconds_left == 7 * 20 - 5
    # Not counted: that it stood still for a while.
    late = read_progress(folder, run, now=100_000)
    assert late
    assert late.seconds_left == 6 * 20
    (folder / "history.csv").unlink()
    assert read_progress(folder, run, now=1005) is None


def test_without_a_terminal_it_is_said_once(
    under_way: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--watch", *SEEDS]) == 0
    heading, row, empty, counts, reason = (
        line.rstrip() for line in capsys.readouterr().out.splitlines()
    )
    assert heading.split() == ["running", "epoch", "loss", "validation", "images/s", "left"]
    assert row.startswith("table3 ResNet50 + channel (SE), seed 0")
    assert row.split()[-7:-2] == ["1/2", "2.500", "90.2", "%", "1,500"]
    assert empty == ""
    assert counts == "12 runs: 3 completed, 1 running, 1 failed, 7 missing."
    assert reason.startswith("failed: table3 ResNet50 + channel & spatial in parallel, seed 1:")
    assert reason.endswith("no such gate")


@contextmanager
def watched(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A watch on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "attention_ablation.cli.main", "status", "--watch", "1"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*command, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read(terminal: int, until: str | None = None) -> str:
    """Return what a terminal shows until a text is among it, or until it is left."""
    shown = b""
    while until is None or until.encode() not in shown:
        try:
            shown += os.read(terminal, 10_000)
        except OSError:  # nobody writes any more
            break
    return shown.decode()


def test_it_ends_by_itself_when_all_runs_have_ended(tiny: Plan) -> None:
    plan = tiny
    runs = [plan.row_runs("table3", key)[0] for key in ROWS]
    for run in runs[1:]:
        finished(plan, run, 20.0)
    with lock_run(begun(plan, runs[0])), watched("--set", "seeds=[0]") as (process, terminal):
        read(terminal, "4 runs: 3 completed, 1 running.")
        finished(plan, runs[0], 30.0)
        assert "4 runs: 4 completed." in read(terminal)
        assert process.wait(60) == 0


def test_it_is_left_quietly(under_way: Plan) -> None:
    with watched(*SEEDS) as (process, terminal):
        for _ in range(2):  # frames: it is surely waiting for the next one
            read(terminal, "7 missing.")
        process.send_signal(signal.SIGINT)
        rest = read(terminal)
        assert process.wait(60) == 0
    assert "Traceback" not in rest
    assert "\x1b[?25h" in rest  # the cursor is back
