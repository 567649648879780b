"""From a number to its run, whether the run's folder can be trusted, and what may be compared."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attention_ablation.cli import main
from attention_ablation.report.collect import collect
from attention_ablation.report.provenance import cells, find_cell
from attention_ablation.report.tables import write_table
from attention_ablation.study.config import Config, Sizing
from attention_ablation.study.confounds import check_recipes, chosen
from attention_ablation.study.errors import UserError
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.runs import finish, restore, sha256
from attention_ablation.study.spec import Run
from attention_ablation.study.verify import check_run, verdict
from attention_ablation.training.provenance import peak_memory
from tests.conftest import ROOT, write_yaml
from tests.test_report import ROWS
from tests.test_training import small_run, spec_file

SEEDS = ["--set", "seeds=[0, 1, 2]"]
FACTS = {
    "git_commit": "c0ffee", "git_dirty": False, "torch": "2.9.0", "numpy": "2.0.0",
    "device": "a CPU", "threads": 1, "processes": 1, "seconds": 9.5, "compute_seconds": 8.5,
    "images_per_second": 100.0, "peak_memory_mb": 700.0, "dataset_fingerprint": "f00d",
}  # fmt: skip


def finished(plan: Plan, run: Run, top1: float, **facts: Any) -> Path:
    """Write a finished run's folder as a training leaves it, and return it."""
    folder = plan.runs_folder / run.path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(run.canonical() + "\n")
    (folder / "weights.pt").write_bytes(b"weights")
    errors = {"validation_top1_error": top1, "validation_top5_error": top1 / 4}
    header = ",".join(["epoch", *errors])
    lines = [f"{n},{','.join(map(str, errors.values()))}" for n in (1, 2)]
    (folder / "history.csv").write_text("\n".join([header, *lines, ""]))
    seals = {"weights_sha256": sha256(folder / "weights.pt")}
    seals["history_sha256"] = sha256(folder / "history.csv")
    metrics = {"status": "completed", "epochs": 2, **errors, **FACTS, **seals}
    finish(folder, metrics | facts)
    return folder


@pytest.fixture
def done(tiny: Plan) -> Plan:
    """Table 3 with all runs finished, and rendered."""
    for number, key in enumerate(ROWS):
        for run in tiny.row_runs("table3", key):
            finished(tiny, run, 20.0 + 4 * number + 2 * run.seed)
    assert main(["render", *SEEDS]) == 0
    return tiny


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
    return [f"{f.level}: {f.text}" for f in findings if f.level in ("wrong", "unverifiable")]


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
        "history_sha256 is None in metrics.json and ",
    ),
    "metrics.json and result.json edited": (
        edit_all_but_history,
        "the last epoch in history.csv has other numbers than metrics.json",
    ),
    "metrics.json deleted": (
        lambda f: (f / "metrics.json").unlink(),
        "metrics.json is missing",
    ),
    "metrics.json cut short": (
        lambda f: (f / "metrics.json").write_text('{"status": "comp'),
        "metrics.json is not a JSON object",
    ),
    "result.json deleted": (lambda f: (f / "result.json").unlink(), "result.json, which keeps"),
    "result.json emptied": (
        lambda f: (f / "result.json").write_text("{}"),
        "result.json, which keeps",
    ),
    "result.json of another kind": (
        lambda f: (f / "result.json").write_text("[]"),
        "result.json is not a JSON object",
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


def test_runs_of_a_version_without_digests_are_not_verifiable_and_no_error(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    run = done.row_runs("table3", ROWS[0])[0]
    folder = done.runs_folder / run.path
    metrics = json.loads((folder / "metrics.json").read_text())
    old = {k: v for k, v in metrics.items() if not k.endswith("_sha256")}
    finish(folder, old)
    assert bad(folder) == ["unverifiable: finished by a version that recorded no digests"]
    assert main(["verify", *SEEDS]) == 0
    output = capsys.readouterr().out
    assert f"unverifiable: {folder}: finished by a version that recorded no digests" in output
    assert "12 of 12 runs finished: 11 verified, 1 not verifiable, 0 wrong." in output
    assert collect(done).loc[run.path, "verified"].startswith("unverifiable: ")
    edit_json(folder / "metrics.json", better)  # what can be compared still is
    assert main(["verify", *SEEDS]) == 1


def test_verify_names_run_rows_and_remedy_and_the_table_says_so_too(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *SEEDS]) == 0
    assert capsys.readouterr().out == (
        "12 of 12 runs finished: 12 verified, 0 not verifiable, 0 wrong.\n"
    )
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
        "in metrics.json and 26.0 in result.json). `attention-ablation verify`." in text
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


def test_verify_survives_a_number_that_became_text(
    done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = done.runs_folder / done.row_runs("table3", ROWS[0])[0].path
    edit_json(folder / "metrics.json", lambda data: data.update(validation_top1_error="low"))
    assert main(["verify", *SEEDS]) == 1
    assert "wrong: table3: it cannot be rendered" in capsys.readouterr().out
    edit_json(folder / "metrics.json", lambda data: data.pop("status"))
    assert main(["verify", *SEEDS]) == 1
    assert "metrics.json is damaged" in collect(done)["reason"].dropna().tolist()[0]


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


@pytest.mark.parametrize(("key", "other"), [("processes", 2), ("dataset_fingerprint", "beef")])
def test_a_table_refuses_rows_that_were_not_trained_alike(
    done: Plan, capsys: pytest.CaptureFixture[str], key: str, other: Any
) -> None:
    finished(done, done.row_runs("table3", ROWS[1])[2], 28.0, **{key: other})
    with pytest.raises(
        UserError, match=rf"table3: expected the same .*\n  {key}: {FACTS[key]} for"
    ):
        write_table(done, "table3", collect(done))
    before = (done.folder / "tables/table3.md").read_text()
    assert main(["render", "table3", "runs", *SEEDS]) == 2
    error = capsys.readouterr().err
    assert f"; {other} for {ROWS[1]} seed 2\n" in error
    assert "Delete the folders of those that are to change" in error
    assert (done.folder / "tables/table3.md").read_text() == before
    assert other in collect(done)[key].tolist()
    assert (done.folder / "runs.csv").exists()  # what is not refused is written
    assert main(["verify", *SEEDS]) == 1
    assert f"wrong: table3: rows that are compared were not trained alike: {key}: " in (
        capsys.readouterr().out
    )


def test_groups_may_be_trained_in_different_ways(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table5"]))
    for (_, key), spec in plan.specs.items():
        processes = 2 if spec.backbone.name == "mobilenet" else 1
        finished(plan, plan.row_runs("table5", key)[0], 30.0, processes=processes)
    write_table(plan, "table5", collect(plan))
    first = plan.row_runs("table5", "mobilenet")[0]
    finished(plan, first, 30.0, processes=1)
    with pytest.raises(UserError, match="processes: 1 for mobilenet; 2 for mobilenet"):
        write_table(plan, "table5", collect(plan))
    # A version that did not record a fact is not held to it.
    metrics = {"status": "completed", "validation_top1_error": 30, "validation_top5_error": 7}
    (plan.runs_folder / first.path / "metrics.json").write_text(json.dumps(metrics))
    write_table(plan, "table5", collect(plan))


def change_tier(project: Path, backbone: str, **changes: Any) -> None:
    """Give a backbone of the tiny tier a sizing of its own."""
    path = project / "workflow/tiers/tiny.yaml"
    tier = yaml.safe_load(path.read_text())
    base = {k: v for k, v in tier["classification"].items() if k != "backbones"}
    recipe = base["recipe"] | changes.pop("recipe", {})
    tier["classification"]["backbones"] = {backbone: base | changes | {"recipe": recipe}}
    write_yaml(path, tier)


def ungroup(project: Path, table: str) -> None:
    path = project / "workflow/studies/cbam/study.yaml"
    study = yaml.safe_load(path.read_text())
    del study["tables"][table]["group_by"]
    write_yaml(path, study)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": {"epochs": 3}}, "recipe.epochs: 2 for {others}; 3 for {names}"),
        ({"width": 0.5}, "width: 0.25 for {others}; 0.5 for {names}"),
        ({"stride": "v1.5"}, "stride: v1 for {others}; v1.5 for {names}"),
        (
            {"reduction": None},
            "reduction: 4 for resnet18+se, resnet18+cbam, resnet34+se, resnet34+cbam and 10 more; "
            "null for resnet50+se, resnet50+cbam",
        ),
        (
            {"recipe": {"schedule": {"name": "cosine", "warmup_epochs": 0}}},
            "recipe.schedule.warmup_epochs: unset for {others}; 0 for {names}",
        ),
    ],
)
def test_a_tier_that_trains_compared_rows_unequally_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], line: str
) -> None:
    monkeypatch.chdir(project)
    config = Config(study="cbam", tier="tiny", tables=["table4"])
    change_tier(project, "resnet50", **changes)
    load_plan(config)  # compared within each backbone
    ungroup(project, "table4")
    with pytest.raises(UserError) as refused:
        load_plan(config)
    line = line.format(
        others="resnet18, resnet18+se, resnet18+cbam, resnet34 and 17 more",
        names="resnet50, resnet50+se, resnet50+cbam",
    )
    first, *lines, last = str(refused.value).splitlines()
    assert first.startswith("workflow/tiers/tiny.yaml: table4: expected the same for all rows that")
    assert f"  {line}" in lines
    assert last.startswith("Make them equal below classification, or compare within each backbone")
    assert last.endswith("in workflow/studies/cbam/study.yaml.")


def test_a_figures_panel_is_held_to_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    config = Config(study="cbam", tier="tiny", tables=["table4", "table5"])
    change_tier(project, "resnet18", recipe={"epochs": 3})
    load_plan(config)
    path = project / "workflow/studies/cbam/study.yaml"
    study = yaml.safe_load(path.read_text())
    study["figures"]["figure4"]["panels"][0]["rows"] = ["resnet50", "resnet18"]
    write_yaml(path, study)
    with pytest.raises(UserError, match=r"figure4, ResNet50: .*\n  recipe.epochs: 3 for resnet18;"):
        load_plan(config)


@pytest.mark.parametrize("tier", ["quick", "imagenet"])
def test_the_tiers_of_the_repository_compare_equal_recipes(tier: str) -> None:
    load_plan(Config(study="cbam", tier=tier), ROOT)


QUICK = load_plan(Config(study="cbam", tier="quick"), ROOT)
PLACES = sorted(QUICK.specs)


@given(
    places=st.lists(st.sampled_from(PLACES), min_size=1, unique=True),
    width=st.floats(0.1, 4),
    reduction=st.none() | st.integers(1, 32),
    epochs=st.integers(1, 300),
    odd=st.none() | st.integers(0, 43),
)
def test_equal_recipes_are_never_refused_and_one_that_differs_always_is(
    places: list[tuple[str, str]],
    width: float,
    reduction: int | None,
    epochs: int,
    odd: int | None,
) -> None:
    recipe = QUICK.tier.classification.recipe
    same = Sizing(
        width=width, reduction=reduction, recipe=recipe.model_copy(update={"epochs": epochs})
    )
    other = same.model_copy(update={"recipe": recipe.model_copy(update={"epochs": epochs + 1})})
    facts = {
        f"{table}:{key}": chosen(other if n == odd else same, QUICK.specs[table, key].attention)
        for n, (table, key) in enumerate(places)
    }
    if odd is not None and odd < len(places) and len(places) > 1:
        with pytest.raises(UserError, match=r"recipe\.epochs: "):
            check_recipes(facts, "a tier", "Mend it.")
    else:
        check_recipes(facts, "a tier", "Mend it.")


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
        "c0ffee\n", "torch 2.9.0, numpy 2.0.0", "a CPU; processes 1, threads of each 1",
        "9.5 s wall, 8.5 s computing, 100 images/s", "700 MB at most, 512.5 MB on the device",
        "data      f00d", "verified  yes",
    ):  # fmt: skip
        assert expected in text, text
    assert main(["where", "table3", "resnet50+cbam", "top1_error", *SEEDS, "--format", "json"]) == 0
    cell = json.loads(capsys.readouterr().out)
    assert (cell["mean"], cell["sd"], cell["n"], cell["printed"]) == (26.0, 2.0, 3, "22.66")
    assert [record["value"] for record in cell["runs"]] == [24.0, 26.0, 28.0]
    assert Run.model_validate({"seed": 1, "spec": cell["runs"][1]["spec"]}) == run
    assert cell["runs"][1]["folder"] == str(folder)
    assert cell["count"] is None


def test_every_cell_leads_somewhere_also_where_nothing_ran(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", seeds=[0, 1]))
    runs = collect(plan)
    for table in plan.tables:
        found = cells(plan, table, runs)
        rows, columns = plan.rows(table), plan.study.tables[table].columns
        assert list(found) == [(row.key, metric) for row in rows for metric in columns]
        for cell in found.values():
            assert bool(cell.runs) != bool(cell.count)
            assert cell.shown == "-"
            assert {record.status for record in cell.runs} <= {"missing"}
    finished(plan, plan.row_runs("table4", "resnet18")[0], 30.0)
    diverged = plan.row_runs("table4", "resnet18")[1]
    finished(plan, diverged, float("inf"), status="diverged", validation_top1_error=None,
             validation_top5_error=None)  # fmt: skip
    failed = plan.runs_folder / plan.row_runs("table4", "resnet34")[0].path
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"status": "failed", "reason": "out of memory"}')
    cell = find_cell(plan, "table4", "resnet18", "top1_error")
    assert (cell.shown, cell.mean, cell.n, cell.seeds) == ("diverged 1/2", None, 1, 2)
    assert [record.verified for record in cell.runs] == ["yes", "yes"]
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
    assert (cell["shown"], cell["runs"]) == ("28.09", [])


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
