"""What is said of a damaged run, and how its folder is put in order again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attention_ablation.cli.main import main
from attention_ablation.report.collect import collect
from attention_ablation.runs.verify import check_run
from attention_ablation.study.expand import Plan
from tests.run_folders import CBAM, SEEDS, finished
from tests.test_any_damage import damage
from tests.test_training import small_run, spec_file

# What is done to a finished run's folder, and the file that is then said to be damaged.
DAMAGED_STATES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a word for a number": (
        "metrics.json",
        lambda f: edit(f / "metrics.json", validation_top1_error="low"),
    ),
    "a list for a commit": ("metrics.json", lambda f: edit(f / "metrics.json", git_commit=["a"])),
    "a key that is a column": ("metrics.json", lambda f: edit(f / "metrics.json", rows=1)),
    "no status": ("metrics.json", lambda f: (f / "metrics.json").write_text("{}")),
    "not JSON": ("metrics.json", lambda f: (f / "metrics.json").write_text("[" * 5000)),
    "not UTF-8": (
        "metrics.json",
        lambda f: (f / "metrics.json").write_bytes(b'{"status": "\xff"}'),
    ),
    "NaN": ("metrics.json", lambda f: (f / "metrics.json").write_text('{"train_loss": NaN}')),
    "a folder": ("metrics.json", lambda f: damage(f / "metrics.json", "folder", None)),
    "no metrics, and a damaged result": ("result.json", lambda f: lose_metrics(f)),
}


def lose_metrics(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    (folder / "result.json").write_text("[]")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_damaged_run_is_said_to_be_and_costs_its_own_cell(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    run = done.row_runs("table3", CBAM)[1]
    folder = done.runs_folder / run.path
    edit(folder / "metrics.json", validation_top1_error="low")
    reason = "metrics.json: validation_top1_error: input should be a valid number"
    assert main(["status", *SEEDS]) == 0
    status = capsys.readouterr().out
    assert f"\ndamaged:\n  {folder}: {reason}; " in status
    assert next(line for line in status.splitlines() if line.startswith("table3")).split() == [
        "table3", "11", "0", "0", "0", "1", "0", "0",
    ]  # fmt: skip
    assert main(["render", *SEEDS]) == 0
    text = (done.folder / "tables/table3.md").read_text()
    assert f"ResNet50 + channel + spatial n = 2 (damaged: {reason})" in text
    assert "26.0 ± 2.8" in text  # of 24 and 28; 26 is left out
    line = pd.read_csv(done.folder / "runs.csv", index_col="run").loc[run.path]
    assert (line["status"], line["reason"]) == ("damaged", reason)
    assert main(["where", "table3", CBAM, "top1_error", *SEEDS]) == 0
    assert f"seed 1: damaged, {reason}\n" in capsys.readouterr().out
    assert main(["verify", *SEEDS]) == 1
    assert f"wrong: {folder} (table3:{CBAM}): damaged: {reason}" in capsys.readouterr().out
    assert main(["plan", *SEEDS]) == 0


def test_each_kind_of_damage_is_named_with_its_file(tiny: Plan) -> None:
    run = tiny.row_runs("table3", CBAM)[0]
    for name, change in DAMAGED_STATES.values():
        shutil.rmtree(tiny.runs_folder, ignore_errors=True)
        folder = finished(tiny, run, 20.0)
        change(folder)
        line = collect(tiny).loc[run.path]
        assert line["status"] == "damaged"
        assert line["reason"].startswith(f"{name}: ")
        assert "\n" not in line["reason"]
        assert [finding.text for finding in check_run(folder)] == [f"damaged: {line['reason']}"]


def test_other_damage_stops_no_verb(done: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (done.runs_folder / run.path for run in done.row_runs("table3", CBAM))
    (first / "gradcam.json").write_text("[]")
    (first / "checkpoint-best.pt").write_bytes(b"a user's own")
    damage(second / "spec.json", "folder", None)
    (third / "spec.json").write_bytes(b"\xff")
    for name in ("metrics.json", "result.json"):
        (second / name).unlink()
    (second / "failure.json").write_text('{"status": "failed"}')
    assert main(["status", *SEEDS]) == 0
    assert f"  {second}: failure.json: reason: field required" in capsys.readouterr().out
    assert main(["render", *SEEDS]) == 0
    assert main(["verify", *SEEDS]) == 1
    out = capsys.readouterr().out
    assert "damaged: gradcam.json: input should be an object" in out
    assert f"{third}/spec.json: expected text in UTF-8" in out
    assert f"warning: {second}: damaged: failure.json" in out
    assert main(["plan", *SEEDS]) == 0
    assert main(["train", str(second / "spec.json")]) == 2
    assert "spec.json: expected a regular file, got a folder" in capsys.readouterr().err


def test_a_finished_run_is_put_in_order_and_not_trained_again(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(tiny, tiny.row_runs("table3", CBAM)[1], 20.0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("metrics.json", "result.json", "history.csv"):
        for what in ("cut", "gone"):
            damage(folder / name, what, 0.5)
            assert main(["train", str(folder / "spec.json")]) == 0
            assert "finished already" in capsys.readouterr().out
            (folder / ".lock").unlink()
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # One that disagrees with its own history overwrites nothing that is sound.
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["validation_top1_error"] = 1.5
    (folder / "result.json").write_text(json.dumps(result))
    assert main(["train", str(folder / "spec.json")]) == 0
    (folder / ".lock").unlink()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_cannot_be_restored_is_trained_again(tiny: Plan) -> None:
    spec = spec_file(small_run(tiny))
    assert main(["train", str(spec)]) == 0
    folder = spec.parent
    edit(folder / "metrics.json", validation_loss="low")
    (folder / "result.json").write_text("{")
    assert main(["train", str(spec)]) == 0
    assert [f for f in check_run(folder, weights=True) if f.level == "wrong"] == []


def test_a_folder_where_a_file_belongs_is_refused_before_anything_is_trained(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_file(small_run(tiny))
    (spec.parent / "metrics.json").mkdir()
    assert main(["train", str(spec)]) == 2
    assert "metrics.json: expected a file, got a folder; remove it." in capsys.readouterr().err
    assert not list(spec.parent.glob("*.pt"))


def test_a_finished_runs_folder_keeps_no_link_no_checkpoint_and_no_part(
    tiny: Plan, tmp_path: Path
) -> None:
    folder = finished(tiny, tiny.row_runs("table3", CBAM)[0], 20.0)
    names = {path.name for path in folder.iterdir()}
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").symlink_to(elsewhere)
    left = ("checkpoint-000000004-0123456789abcdef.pt", "checkpoint.part", ".metrics.json.part",
            ".weights.pt1.part")  # fmt: skip
    for name in left:
        (folder / name).write_bytes(b"half")
    (folder / "checkpoint-best.pt").write_bytes(b"a user's own")
    assert main(["train", str(folder / "spec.json")]) == 0
    assert elsewhere.read_text() == "{}"
    assert not (folder / "metrics.json").is_symlink()
    assert {path.name for path in folder.iterdir()} == names | {"checkpoint-best.pt", ".lock"}
