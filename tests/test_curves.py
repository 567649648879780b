"""Histories as curves: read while they are written, and shown by a tracker's own reader."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attention_ablation.cli.main import main
from attention_ablation.report.curves import Trackio
from attention_ablation.runs.follow import Rows, new_rows
from attention_ablation.study.expand import Plan, load_plan
from tests.run_folders import CBAM, SE, SEEDS, finished

HEADER = "epoch,train_loss,validation_top1_error,seconds\n"
ROWS = ["1,2.0,50.0,9\n", "2,1.5,40.0,9\n", "3,1.0,,9\n"]


@pytest.fixture
def single(tiny: Plan) -> Plan:
    """Table 3 with one seed."""
    return load_plan(tiny.config.model_copy(update={"seeds": [0]}))


def history(plan: Plan, key: str) -> Path:
    path = plan.runs_folder / plan.row_runs("table3", key)[0].path / "history.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def meanwhile(monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> None:
    """Let one event happen in every pause."""
    left = iter(events)
    monkeypatch.setattr(time, "sleep", lambda seconds: next(left)())


def test_rows_come_as_a_training_writes_them(single: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history(single, CBAM)
    again = HEADER + ROWS[0] + "2,1.4,39.0,8\n"  # its seconds, at least, are other ones
    for key in {row.key for row in single.rows("table3")} - {CBAM}:
        (history(single, key).parent / "failure.json").write_text(
            '{"status": "failed", "reason": "no memory"}'
        )
    meanwhile(
        monkeypatch,
        lambda: path.write_text(HEADER + ROWS[0] + "2,1"),  # of a line a part
        lambda: path.write_text(HEADER + ROWS[0] + ROWS[1] + ROWS[2]),
        path.unlink,  # as Snakemake does before a job
        lambda: path.write_text(again),  # resumed from epoch 1
        lambda: path.write_text("no history\n"),
        lambda: path.write_text(again + ROWS[2]),
        lambda: finished(single, single.row_runs("table3", CBAM)[0], 20.0),
    )
    found = list(new_rows(single, follow=True))
    assert {rows.run for rows in found} == {single.row_runs("table3", CBAM)[0].path}
    assert [([int(row["epoch"]) for row in rows.rows], rows.anew) for rows in found] == [
        ([1], True), ([2, 3], False), ([1, 2], True), ([3], False), ([1, 2], True),
    ]  # fmt: skip
    assert [rows.last for rows in found] == [False] * 4 + [True]
    assert found[2].rows[1]["train_loss"] == 1.4


def test_without_follow_what_is_there_is_read_once(
    single: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch)
    assert list(new_rows(single, follow=False)) == []
    history(single, SE).write_text(HEADER + ROWS[0])
    (found,) = new_rows(single, follow=False)
    assert (len(found.rows), found.anew, found.last) == (1, True, True)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a folder: each curve's steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_tensorboard_reads_each_epoch_once(
    single: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    path, run = history(single, CBAM), single.row_runs("table3", CBAM)[0].path
    path.write_text(HEADER + ROWS[0] + ROWS[1])
    before = path.read_bytes()
    command = ["export", "tensorboard", "curves", "--set", "seeds=[0]"]
    for _ in range(2):  # the second replaces the first
        assert main(command) == 0
        assert capsys.readouterr().out == f"{run}: epoch 2\n"
        assert scalars(Path("curves") / run) == {
            "train/loss": [(1, 2.0), (2, 1.5)],
            "validation/top1_error": [(1, 50.0), (2, 40.0)],
            "seconds": [(1, 9.0), (2, 9.0)],
        }
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]

    def stopped() -> None:
        raise KeyboardInterrupt

    other = HEADER + ROWS[0] + "2,1.25,30.0,9\n" + ROWS[2]
    meanwhile(
        monkeypatch,
        lambda: path.write_text(HEADER + "".join(ROWS)),
        lambda: path.write_text(other),
        stopped,
    )
    assert main([*command, "--follow"]) == 0
    assert capsys.readouterr().err == ""
    read = scalars(Path("curves") / run)
    assert read["train/loss"] == [(1, 2.0), (2, 1.25), (3, 1.0)]
    assert read["validation/top1_error"] == [(1, 50.0), (2, 30.0)]  # epoch 3 has none


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_missing_package_is_a_sentence(
    tiny: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["export", name, "curves"]) == 2
    error = capsys.readouterr().err
    assert f"expected the package {name}, which is not installed" in error
    assert f"pip install --editable '.[{name}]'" in error


def test_a_folder_that_cannot_be_written_is_a_sentence(
    single: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    history(single, CBAM).write_text(HEADER + ROWS[0])
    Path("curves").write_text("a file")
    assert main(["export", "tensorboard", "curves", *SEEDS]) == 2
    assert "it cannot be written: Not a directory" in capsys.readouterr().err


def test_trackio_has_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    rows = [{"epoch": float(n), "train_loss": 1.0 / n} for n in (1, 2, 3)]
    for _ in range(2):
        tracker = Trackio("p")
        tracker.write(Rows("a/seed-0", rows[:2], anew=True, last=False))
        tracker.write(Rows("a/seed-1", rows[:1], anew=True, last=True))
        tracker.write(Rows("a/seed-0", rows[2:], anew=False, last=True))
    logged = SQLiteStorage.get_logs("p", "a/seed-0")
    assert [(line["step"], line["train/loss"]) for line in logged] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
    ]
    assert len(SQLiteStorage.get_logs("p", "a/seed-1")) == 1
