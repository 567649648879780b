"""What may be compared: recipes before anything starts, trainings when a table is rendered."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.report.collect import collect
from attention_ablation.report.tables import write_table
from attention_ablation.study.config import Config, Sizing
from attention_ablation.study.confounds import check_recipes, chosen
from attention_ablation.study.expand import Plan, load_plan
from tests.conftest import ROOT, write_yaml
from tests.controls import TIER as CONTROLS_TIER
from tests.controls import load as load_controls
from tests.run_folders import FACTS, ROWS, SEEDS, finished


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
    assert f"  classification.{line}" in lines
    assert last.startswith("Make them equal there, or compare within each backbone")
    assert last.endswith("in workflow/studies/cbam/study.yaml.")


def test_gates_that_a_tier_starts_unequally_are_not_compared(controls: Plan) -> None:
    tier = yaml.safe_load(CONTROLS_TIER.read_text())
    base = dict(tier["classification"])
    tier["classification"]["backbones"] = {"resnet50": base | {"start": "half"}}
    write_yaml(CONTROLS_TIER, tier)
    load_controls()  # each gate says its own start
    cbam = Config(study="cbam", tier="tiny", tables=["table4"])
    load_plan(cbam)  # compared within each backbone
    study = yaml.safe_load((path := Path("workflow/studies/cbam/study.yaml")).read_text())
    del study["tables"]["table4"]["group_by"]
    write_yaml(path, study)
    with pytest.raises(UserError) as refused:
        load_plan(cbam)
    line = str(refused.value).splitlines()[1]
    assert line.startswith("  classification.start: identity for resnet18+se, resnet18+cbam")
    assert line.endswith("; half for resnet50+se, resnet50+cbam")
    for name in ("se", "cbam"):
        study["attentions"][name]["start"] = "identity"
    write_yaml(path, study)
    load_plan(cbam)


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
    expected = r"figure4, ResNet50: .*\n  classification.recipe.epochs: 3 for resnet18;"
    with pytest.raises(UserError, match=expected):
        load_plan(config)


def test_a_panel_against_the_recipe_compares_rows_of_the_same_times(controls: Plan) -> None:
    rows = Path("workflow/studies/controls/rows.csv")
    more = 'length,ResNet50,resnet50,none,\nlength,"ResNet50, long",resnet50,none,8\n'
    rows.write_text(rows.read_text() + more)
    study = yaml.safe_load((path := Path("workflow/studies/controls/study.yaml")).read_text())
    study["tables"]["length"]["group_by"] = "backbone"
    panels = study["figures"]["error-against-length"]["panels"]
    panels[0]["rows"] = ["resnet18", "resnet50"]
    write_yaml(path, study)
    load_controls()
    change_tier(Path(), "resnet50", width=0.5)
    with pytest.raises(UserError) as refused:
        load_controls()
    first, line, _ = str(refused.value).splitlines()
    assert "error-against-length, the authors' start: expected the same" in first
    assert line == "  classification.width: 0.25 for resnet18; 0.5 for resnet50"
    panels[0]["rows"] = ["resnet18", "resnet18+se"]
    write_yaml(path, study)
    load_controls()


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
        f"{table}:{key}": chosen(
            other if n == odd else same, QUICK.specs[table, key].attention, "classification"
        )
        for n, (table, key) in enumerate(places)
    }
    if odd is not None and odd < len(places) and len(places) > 1:
        with pytest.raises(UserError, match=r"recipe\.epochs: "):
            check_recipes(facts, "a tier", "Mend it.")
    else:
        check_recipes(facts, "a tier", "Mend it.")
