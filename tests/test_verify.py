"""Whether a run's folder can be trusted, and what is said where it cannot."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

from attention_ablation.cli.main import main
from attention_ablation.evidence import complexity
from attention_ablation.evidence.complexity import Complexity
from attention_ablation.report.collect import collect
from attention_ablation.runs.folder import restore, sha256
from attention_ablation.runs.verify import check_run, verdict
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.provenance import peak_memory
from tests.conftest import ROOT
from tests.run_folders import CBAM, ROWS, SEEDS, finished
from tests.test_training import small_run, spec_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained, `<run id>/seed-0`."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        plan = load_plan(Config(study="cbam", tier="quick", tables=["table3"]))
        patched.chdir(root)
        dataset = plan.tier.classification.recipe.dataset.model_dump()
        dataset |= {"train_images": 64, "validation_images": 50}
        spec = spec_file(small_run(plan, dataset=dataset, epochs=2, batch_size=16))
        assert main(["train", str(spec)]) == 0
        return root / spec.parent


def bad(folder: Path, *, weights: bool = True) -> list[str]:
    """What `check_run` finds, without warnings of uncommitted changes."""
    findings = check_run(folder, weights=weights)
    return [f"{f.level}: {f.text}" for f in findings if f.level == "wrong"]


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def better(data: dict[str, Any]) -> None:
    data["validation_top1_error"] = 1.5


def replace_weights(folder: Path) -> None:
    weights = torch.load(folder / "weights.pt", weights_only=True)
    first = next(iter(weights.values()))
    first += 1e-3
    torch.save(weights, folder / "weights.pt")


def edit_history(folder: Path) -> None:
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows[0]["validation_top1_error"] = "1.5"  # an epoch that no table shows
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def edit_all_but_history(folder: Path) -> None:
    edit_json(folder / "metrics.json", better)
    edit_json(folder / "result.json", lambda data: better(data["metrics"]))


def edit_history_twice(folder: Path) -> None:
    edit_history(folder)
    text = (folder / "history.csv").read_text()
    edit_json(folder / "result.json", lambda data: data.update(history=text))


def edit_spec(folder: Path) -> None:
    text = (folder / "spec.json").read_text()
    (folder / "spec.json").write_text(text.replace('"epochs":2', '"epochs":3'))


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "metrics.json edited": (
        lambda f: edit_json(f / "metrics.json", better),
        "validation_top1_error is 1.5 in metrics.json and ",
    ),
    "metrics.json without its digests": (
        lambda f: edit_json(f / "metrics.json", lambda data: data.pop("history_sha256")),
        "damaged: metrics.json: history_sha256: field required",
    ),
    "metrics.json and result.json edited": (
        edit_all_but_history,
        "damaged: result.json: the last epoch in history.csv has other numbers than the metrics",
    ),
    "result.json edited": (
        lambda f: edit_json(f / "result.json", lambda data: better(data["metrics"])),
        "damaged: result.json: the last epoch in history.csv has other numbers than the metrics",
    ),
    "metrics.json deleted": (
        lambda f: (f / "metrics.json").unlink(),
        "metrics.json is missing",
    ),
    "metrics.json cut short": (
        lambda f: (f / "metrics.json").write_text('{"status": "comp'),
        "damaged: metrics.json: invalid JSON: EOF while parsing a string",
    ),
    "result.json deleted": (lambda f: (f / "result.json").unlink(), "result.json, which keeps"),
    "result.json emptied": (
        lambda f: (f / "result.json").write_text("{}"),
        "damaged: result.json: metrics: field required",
    ),
    "result.json without its history": (
        lambda f: edit_json(f / "result.json", lambda data: data.pop("history")),
        "damaged: result.json: history: field required",
    ),
    "result.json of another kind": (
        lambda f: (f / "result.json").write_text("[]"),
        "damaged: result.json: input should be an object",
    ),
    "history.csv edited": (edit_history, "history.csv is not the one in result.json"),
    "history.csv and result.json edited": (
        edit_history_twice,
        "history.csv has not the digest that was recorded",
    ),
    "history.csv deleted": (lambda f: (f / "history.csv").unlink(), "history.csv is missing"),
    "weights.pt replaced": (replace_weights, "weights.pt has not the digest that was recorded"),
    "weights.pt deleted": (lambda f: (f / "weights.pt").unlink(), "weights.pt is missing"),
    "spec.json edited": (edit_spec, "it was edited or moved"),
    "spec.json deleted": (lambda f: (f / "spec.json").unlink(), "there is no such spec"),
}


def test_what_a_training_leaves_is_verified_and_so_it_is_when_restored(
    trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / trained.parent.name / trained.name
    shutil.copytree(trained, folder)
    assert bad(folder) == []
    for name in ("metrics.json", "history.csv"):  # as Snakemake deletes them
        (folder / name).unlink()
    assert restore(folder)
    assert bad(folder) == []
    assert verdict(check_run(folder)) == "yes"


def test_a_diverged_run_is_verified_too(tiny: Plan) -> None:
    path = spec_file(small_run(tiny, learning_rate=1e20))
    assert main(["train", str(path)]) == 0
    assert json.loads((path.parent / "metrics.json").read_text())["status"] == "diverged"
    assert bad(path.parent) == []


@pytest.mark.parametrize("case", TAMPERED)
def test_each_edit_of_a_trained_runs_folder_is_found(
    trained: Path, tmp_path: Path, case: str
) -> None:
    change, expected = TAMPERED[case]
    folder = tmp_path / trained.parent.name / trained.name
    shutil.copytree(trained, folder)
    change(folder)
    found = bad(folder)
    assert len(found) == 1, found
    assert found[0].startswith("wrong: ")
    assert expected in found[0]
    if case.startswith("weights"):
        assert bad(folder, weights=False) == []  # the tables do not read them


def test_metrics_and_result_deleted_are_a_run_that_has_not_finished(
    trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / trained.parent.name / trained.name
    shutil.copytree(trained, folder)
    (folder / "metrics.json").unlink()
    (folder / "result.json").unlink()
    assert check_run(folder, weights=True) == []


def test_a_training_records_memory_packages_and_digests(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert 50 < metrics["peak_memory_mb"] < 100_000
    assert "peak_device_memory_mb" not in metrics  # of GPUs only
    assert metrics["dataset_composed_with"].startswith("numpy ")
    assert "scikit-learn " in metrics["dataset_composed_with"]
    assert metrics["weights_sha256"] == sha256(trained / "weights.pt")
    assert metrics["history_sha256"] == sha256(trained / "history.csv")
    assert not {"host", "hostname", "user", "cwd"} & metrics.keys()


def test_a_gpus_peak_memory_is_recorded_in_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**19)
    assert peak_memory(torch.device("cuda"))["peak_device_memory_mb"] == 1.5


def test_verify_names_run_rows_and_remedy_and_the_table_says_so_too(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *SEEDS]) == 0
    assert capsys.readouterr().out == ("12 of 12 runs finished: 12 verified, 0 wrong.\n")
    folder = done.runs_folder / done.row_runs("table3", "resnet50+cbam")[1].path
    edit_json(folder / "metrics.json", better)
    assert main(["verify", *SEEDS]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"wrong: {folder} (table3:resnet50+cbam): validation_top1_error is 1.5 in metrics.json "
        f"and 26.0 in result.json; `attention-ablation train {folder}/spec.json` writes it again "
        "from result.json"
    )
    assert main(["render", *SEEDS]) == 0
    text = (done.folder / "tables/table3.md").read_text()
    assert (
        "- Not to be trusted: ResNet50 + channel + spatial, seed 1 (validation_top1_error is 1.5 "
        "in metrics.json and 26.0 in result.json); see attention-ablation verify." in text
    )
    assert restore(folder)  # what the remedy does
    assert main(["render", *SEEDS]) == 0
    assert main(["verify", *SEEDS]) == 0
    assert "Not to be trusted" not in (done.folder / "tables/table3.md").read_text()


def test_verify_finds_replaced_weights_and_edited_tables(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = done.runs_folder / done.row_runs("table3", ROWS[0])[0].path
    (folder / "weights.pt").write_bytes(b"others")
    table = done.folder / "tables/table3.md"
    table.write_text(table.read_text().replace("22.0", "12.0", 1))
    assert main(["verify", *SEEDS]) == 1
    output = capsys.readouterr().out
    assert "weights.pt has not the digest that was recorded; delete the folder" in output
    assert f"wrong: {table}: not what its runs give now: edited, old" in output


def test_verify_holds_runs_csv_and_the_ledger_too(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, old, new in (
        ("runs.csv", ",22,", ",12,"),
        ("claims.csv", ",undecided,", ",supported,"),
        ("claims.md", "undecided", "supported"),
    ):
        path = done.folder / name
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))
        assert main(["verify", *SEEDS]) == 1
        assert f"wrong: {path}: not what its runs give now" in capsys.readouterr().out
        path.write_text(before)
    assert main(["verify", *SEEDS]) == 0


def test_files_of_another_choice_are_told_from_wrong_ones(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["verify", "--set", "tables=[table1, table3]"]  # and the tier's one seed
    tables = ["tables/table3.csv", "tables/table3.md", "tables/table3.tex"]
    others = [str(done.folder / name) for name in ("report.html", "runs.csv", *tables)]
    assert main(whole) == 0
    warned, counted = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        f"warning: {done.folder}/.* and [0-9]+ more: made for another choice of tables or seeds, "
        "and in agreement with its runs; verify with that choice, TABLES=table3 SEEDS=0,1,2, or "
        "render again",
        warned,
    )
    assert counted == "4 of 8 runs finished: 4 verified, 0 wrong."
    # A run of that choice alone, whose number was edited before it was rendered.
    metrics = done.runs_folder / done.row_runs("table3", "resnet50+se")[1].path / "metrics.json"
    before = metrics.read_text()
    metrics.write_text(
        before.replace('"validation_top1_error": 22.0', '"validation_top1_error": 2.0')
    )
    assert main(["render", *SEEDS]) == 0
    assert main(whole) == 1
    assert f"wrong: {metrics.parent}" in capsys.readouterr().out
    metrics.write_text(before)
    assert main(["render", *SEEDS]) == 0
    capsys.readouterr()
    # What agrees with neither choice is wrong, and so is a table that the other one does not have.
    table = done.folder / "tables/table1.md"
    table.write_text("**Table 1**\n")
    page = done.folder / "report.html"
    page.write_text(page.read_text().replace("22.0 ± 2.0", "12.0 ± 2.0", 1))
    assert main(whole) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong: ")]
    assert [line.split(": ")[1] for line in wrong] == [str(page), str(table)]
    # A list of runs that is no such list leaves all of it wrong, as a choice cannot be read off it.
    (done.folder / "runs.csv").write_text("run\n1\n")
    assert main(whole) == 1
    out = capsys.readouterr().out
    assert all(f"wrong: {path}: not what its runs give now" in out for path in others)
    assert "another choice" not in out


def test_verify_holds_the_page_and_the_count_of_every_network(
    done: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(complexity, "measure_row", lambda *_: Complexity(1_234_567, Decimal("1.5")))
    assert main(["render", "complexity", "table3", "claims", "report", *SEEDS]) == 0
    assert main(["verify", *SEEDS]) == 0
    edited = []
    for name, old, new in (
        ("report.html", "22.0 ± 2.0", "12.0 ± 2.0"),
        ("complexity.csv", "1234567", "1234566"),
    ):
        path = done.folder / name
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))
        edited.append(path)
    assert main(["verify", *SEEDS]) == 1
    out = capsys.readouterr().out
    assert all(f"wrong: {path}: not what its runs give now" in out for path in edited)


def test_a_damaged_count_is_a_sentence_and_a_missing_one_is_dashes(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "table,row\n", "table,row,params,gflops\na,b,many,1\n", "a\n1,2,3\n"):
        (done.folder / "complexity.csv").write_text(text)
        assert main(["render", "table3", *SEEDS]) == 2
        said = "complexity.csv: expected a line for each row, with its size in numbers; `attention"
        assert said in capsys.readouterr().err
    (done.folder / "complexity.csv").unlink()
    assert main(["render", *SEEDS]) == 0


def test_the_ledger_names_runs_that_fail_verification(done: Plan) -> None:
    edit_json(done.runs_folder / done.row_runs("table3", CBAM)[1].path / "metrics.json", better)
    assert main(["render", "claims", "report", *SEEDS]) == 0
    said = f"Not to be trusted: table3:{CBAM}, seed 1 (validation_top1_error is 1.5 in metrics.json"
    for name in ("claims.md", "report.html"):
        assert said in (done.folder / name).read_text()


def test_verify_survives_a_number_that_became_text(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = done.runs_folder / done.row_runs("table3", ROWS[0])[0].path
    edit_json(folder / "metrics.json", lambda data: data.update(validation_top1_error="low"))
    assert main(["verify", *SEEDS]) == 1
    output = capsys.readouterr().out
    assert "damaged: metrics.json: validation_top1_error: input should be a valid number" in output
    assert "11 of 12 runs finished: 11 verified, 0 wrong, 1 damaged." in output
    edit_json(folder / "metrics.json", lambda data: data.pop("status"))
    assert main(["verify", *SEEDS]) == 1
    line = collect(done).loc[done.row_runs("table3", ROWS[0])[0].path]
    assert (line["status"], line["reason"]) == ("damaged", "metrics.json: status: field required")


def test_uncommitted_changes_warn_and_several_conditions_are_noted(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in done.row_runs("table3", ROWS[0]):
        finished(done, run, 20.0 + 2 * run.seed, git_dirty=True, torch="2.10.0", git_commit="0ff")
    assert main(["render", *SEEDS]) == 0
    assert main(["verify", *SEEDS]) == 0
    output = capsys.readouterr().out
    assert " and 2 more: trained with changes that were not committed" in output
    seeds = ", ".join(f"{ROWS[0]} seed {n}" for n in range(3))
    others = f"{', '.join(f'{ROWS[1]} seed {n}' for n in range(3))}, {ROWS[2]} seed 0 and 5 more"
    assert f"note: table3: its runs were made under several conditions: torch: 2.10.0 for {seeds}; "
    assert f"torch: 2.10.0 for {seeds}; 2.9.0 for {others}" in output
    text = (done.folder / "tables/table3.md").read_text()
    assert f"- Not trained alike: git_commit: 0ff for {seeds}; c0ffee for {others}. " in text
