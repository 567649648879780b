"""From a number to the runs, or the count, that it came from."""

import json
from pathlib import Path

import pytest

from attention_ablation.cli.main import main
from attention_ablation.report.collect import collect
from attention_ablation.report.results import table_results
from attention_ablation.report.where import find_cell
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.run_folders import SEEDS, finished, write_metrics


def test_where_leads_from_a_cell_to_its_runs(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    run = done.row_runs("table3", "resnet50+cbam")[1]
    folder = finished(done, run, 26.0, git_dirty=True, peak_device_memory_mb=512.5)
    assert main(["where", "table3", "resnet50+cbam", "top1_error", *SEEDS]) == 0
    text = capsys.readouterr().out
    for expected in (
        "ours   26.0 ± 2.0 (n = 3 of 3)", "paper  22.66", "seed 1: completed, 26 %",
        f"folder    {folder}\n", f"log       {folder}/train.log\n", "name resnet50, width 0.25",
        "attention pooling avg&max, reduction 4", "epochs 2", "c0ffee with uncommitted changes",
        "c0ffee\n", "torch 2.9.0, torchvision 0.24.0, numpy 2.0.0",
        "a CPU; processes 1, threads of each 1",
        "9.5 s wall, 8.5 s computing, 100 images/s", "700 MB at most, 512.5 MB on the device",
        "data      f00d", "verified  yes",
    ):  # fmt: skip
        assert expected in text, text
    assert main(["where", "table3", "resnet50+cbam", "top1_error", *SEEDS, "--format", "json"]) == 0
    cell = json.loads(capsys.readouterr().out)
    assert (cell["value"], cell["spread"], cell["n"], cell["paper"]) == (26.0, 2.0, 3, "22.66")
    assert [record["value"] for record in cell["runs"]] == [24.0, 26.0, 28.0]
    assert Run.model_validate({"seed": 1, "spec": cell["runs"][1]["spec"]}) == run
    assert cell["runs"][1]["folder"] == str(folder)
    assert cell["count"] is None


def test_where_says_whether_we_reproduce_the_paper(
    faithful: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    write_metrics(faithful, "resnet50+cbam", [22.0, 22.1, 22.2])
    place = ["where", "table3", "resnet50+cbam", "top1_error", *SEEDS]
    assert main(place) == 0
    # 22.1 and 4.3027 x 0.1 x sqrt(4/3) = 0.497.
    says = (
        "  paper  22.66, outside our 95 % prediction interval for one further run, 21.60 to 22.60"
    )
    assert f"{says}\n" in capsys.readouterr().out
    assert main([*place, "--format", "json"]) == 0
    cell = json.loads(capsys.readouterr().out)
    assert cell["prediction"] == pytest.approx([21.603, 22.597], abs=1e-3)
    assert (cell["paper"], cell["paper_inside"]) == ("22.66", False)


def test_every_cell_leads_somewhere_also_where_nothing_ran(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", seeds=[0, 1]))
    runs = collect(plan)
    for table in plan.tables:
        results = table_results(plan, table, runs, {})
        assert [line.row for line in results.rows] == plan.rows(table)
        assert list(results.columns) == plan.study.tables[table].columns
        for line in results.rows:
            assert set(results.columns) <= set(line.cells)
            for name, cell in line.cells.items():
                assert bool(cell.runs) != plan.study.metrics[name].counted
                assert cell.text == "-"
                assert {runs.loc[run.path, "status"] for run in cell.runs} <= {"missing"}
    finished(plan, plan.row_runs("table4", "resnet18")[0], 30.0)
    diverged = plan.row_runs("table4", "resnet18")[1]
    finished(plan, diverged, float("inf"), status="diverged", validation_top1_error=None,
             validation_top5_error=None)  # fmt: skip
    failed = plan.runs_folder / plan.row_runs("table4", "resnet34")[0].path
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"status": "failed", "reason": "out of memory"}')
    found = find_cell(plan, "table4", "resnet18", "top1_error")
    assert (found["text"], found["value"], found["n"]) == ("diverged 1/2", None, 1)
    assert [record["verified"] for record in found["runs"]] == ["yes", "yes"]
    choice = ["--set", "tables=all", "--set", "seeds=[0, 1]"]
    assert main(["where", "table4", "resnet34", "top1_error", *choice]) == 0
    assert "seed 0: failed, out of memory\n" in capsys.readouterr().out
    assert main(["where", "table4", "resnet18", "top1_error", *choice, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["value"] is None


def test_a_count_says_how_it_was_counted_and_names_the_discrepancy(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    choice = ["--set", "tables=all"]
    place = ["where", "table1", "resnet50+channel"]
    assert main([*place, "gflops", *choice]) == 0
    assert "not counted yet" in capsys.readouterr().out
    folder = project / "results/tiny/cbam"
    folder.mkdir(parents=True)
    (folder / "complexity.csv").write_text(
        "table,row,params,gflops,verdict\ntable1,resnet50+channel,28088024,3.863003,bam-columns\n"
    )
    assert main([*place, "gflops", *choice]) == 0
    text = capsys.readouterr().out
    for expected in ("ours   3.863\n", "paper  4.02", "exact     3.863003", "bam-columns",
                     "full-size network", "name resnet50, width 1.0", "reduction 16",
                     "twice BAM's overhead", "results/tiny/cbam/complexity.csv"):  # fmt: skip
        assert expected in text, text
    assert main([*place, "params_m", *choice, "--format", "json"]) == 0
    cell = json.loads(capsys.readouterr().out)
    assert (cell["count"]["value"], cell["count"]["verdict"]) == (28.088024, "bam-columns")
    assert (cell["text"], cell["runs"]) == ("28.09", [])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("tabel3", "resnet50+se", "top1_error"), "unknown table 'tabel3'; did you mean 'table3'?"),
        (("table3", "resnet50+sse", "top1_error"), "unknown row 'resnet50+sse'; did you mean 'res"),
        (("table3", "resnet50+se", "top1"), "unknown metric 'top1'; did you mean 'top1_error'?"),
        (
            ("table3", "resnet50+se", "gflops"),
            "unknown metric 'gflops'; valid are: top1_error, top",
        ),
        (
            ("table4", "resnet50+se", "gflops"),
            "table4: expected one of the selected tables, table3",
        ),
    ],
)
def test_a_cell_that_is_not_there_is_named_with_the_nearest(
    tiny: Plan, capsys: pytest.CaptureFixture[str], place: tuple[str, ...], message: str
) -> None:
    assert main(["where", *place]) == 2
    assert message in capsys.readouterr().err
