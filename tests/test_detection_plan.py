"""Detection rows as planned: runs, what they start from, the paper's protocols, refusals."""

import copy
from pathlib import Path

import pytest
import yaml

from attention_ablation.base.errors import UserError
from attention_ablation.spec.spec import DetectionSpec, Run, Spec
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.files import load_study
from attention_ablation.training.schedule import learning_rate
from tests.conftest import ROOT, write_yaml


def quick(*tables: str, root: Path = ROOT) -> Plan:
    return load_plan(Config(study="cbam", tier="quick", tables=list(tables)), root)


def detection(plan: Plan, table: str, key: str) -> DetectionSpec:
    spec = plan.specs[table, key]
    assert isinstance(spec, DetectionSpec)
    return spec


def test_detectors_start_from_the_classification_runs_of_other_tables() -> None:
    both = quick("table4", "table6")
    alone = quick("table6")
    assert len(alone.runs) == 10  # five detectors, and what each starts from
    shown = {run.path for run in both.table_runs("table4")}
    # Nothing is trained for Table 6 but the detectors and ECA's backbone.
    assert len(both.runs) - len(shown) == 6
    for row in both.rows("table6"):
        spec = detection(both, "table6", row.key)
        assert spec.attention == both.study.attentions[row.attention].model_copy(
            update=spec.attention.model_dump(include={"reduction", "start"})
        )
        if row.attention == "eca":
            continue
        assert spec.initial == both.specs["table4", row.key.replace("+faster-rcnn", "")]
        (run,) = both.row_runs("table6", row.key)
        assert run.initial
        assert run.initial.path in shown


def test_gates_before_classifiers_leave_the_backbone_without() -> None:
    plan = quick("table5", "table7")
    for key in ("vgg16+ssd", "vgg16+stairnet+cbam"):
        initial = detection(plan, "table7", key).initial
        assert initial
        assert initial.attention.slug == "none"
    starts = {spec.initial.run_id for spec in map(plan.specs.get, plan.specs)
              if isinstance(spec, DetectionSpec) and spec.initial}  # fmt: skip
    assert starts == {
        plan.specs["table5", "mobilenet"].run_id,
        next(run.spec.run_id for run in plan.runs.values() if run.path.startswith("vgg16_none")),
    }
    assert "1 more only to start others from" in plan.summary


def test_what_a_detector_starts_from_is_part_of_its_identity() -> None:
    spec = detection(quick("table7"), "table7", "vgg16+ssd")
    assert spec.initial
    longer = spec.initial.recipe.model_copy(update={"epochs": 99})
    other = spec.model_copy(update={"initial": spec.initial.model_copy(update={"recipe": longer})})
    assert len({spec.run_id, other.run_id, spec.model_copy(update={"initial": None}).run_id}) == 3
    run = Run(seed=3, spec=spec)
    assert Run.model_validate_json(run.canonical()) == run
    assert run.initial == Run(seed=3, spec=spec.initial)
    assert Run(seed=3, spec=spec.initial).initial is None


def test_a_tier_is_for_the_tables_that_it_has_recipes_of() -> None:
    tables = {
        tier: load_plan({"study": "cbam", "tier": tier}, ROOT).tables
        for tier in ("quick", "imagenet", "voc", "coco")
    }
    assert tables == {
        "quick": [f"table{i}" for i in range(1, 8)],
        "imagenet": [f"table{i}" for i in range(1, 6)],
        "voc": ["table7"],
        "coco": ["table6"],
    }
    with pytest.raises(UserError, match="expected a recipe for faster-rcnn below detection"):
        load_plan({"study": "cbam", "tier": "imagenet", "tables": ["table6"]}, ROOT)


def test_the_coco_tier_is_the_papers_protocol() -> None:
    plan = load_plan({"study": "cbam", "tier": "coco"}, ROOT)
    spec = detection(plan, "table6", "resnet101+faster-rcnn+cbam")
    recipe = spec.recipe
    assert (recipe.steps, recipe.batch_size, recipe.weight_decay) == (490_000, 1, 1e-4)
    assert recipe.decay_biases is False
    assert recipe.steps_per_epoch
    rates = [
        learning_rate(recipe.schedule, recipe.learning_rate, step, recipe.steps_per_epoch, 49)
        for step in (0, 349_999, 350_000, 489_999)
    ]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert (recipe.dataset.image_size, recipe.dataset.train_images) == (600, 118_287)
    imagenet = load_plan({"study": "cbam", "tier": "imagenet"}, ROOT)
    assert spec.initial == imagenet.specs["table4", "resnet101+cbam"]


def test_the_voc_tier_is_the_papers_protocol() -> None:
    plan = load_plan({"study": "cbam", "tier": "voc"}, ROOT)
    recipe = detection(plan, "table7", "mobilenet+stairnet+se").recipe
    assert (recipe.epochs, recipe.weight_decay, recipe.metric) == (250, 5e-4, "voc")
    per_epoch = recipe.steps // recipe.epochs
    assert per_epoch == 16_551 // 32
    rates = [
        learning_rate(recipe.schedule, recipe.learning_rate, epoch * per_epoch, per_epoch, 250)
        for epoch in (0, 1, 149, 150, 199, 200, 249)
    ]
    assert rates == pytest.approx([4e-3 / 517, 4e-3, 4e-3, 4e-4, 4e-4, 4e-5, 4e-5])
    assert [recipe.evaluates(epoch) for epoch in (1, 9, 10, 250)] == [False, False, True, True]
    assert recipe.evaluations == 25


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "table7,X,resnet50,ssd,none,,,,,,,",
            "expected a backbone of ssd among mobilenet, .*vgg16, got 'resnet50'",
        ),
        (
            "table6,X,vgg16,faster-rcnn,none,,,,,,,",
            "expected a backbone of faster-rcnn among .* got 'vgg16'",
        ),
        ("table7,X,vgg16,yolo,none,,,,,,,", "detector"),
        ("table4,X,vgg16,ssd,none,,,,,,,", "a detector in every row or in none"),
        ("table6,X,resnet50,faster-rcnn,none,,,,,,,", "has the row 'resnet50.faster-rcnn' already"),
    ],
)
def test_rows_that_cannot_be_are_refused(project: Path, line: str, message: str) -> None:
    rows = project / "workflow/studies/cbam/rows.csv"
    rows.write_text(f"{rows.read_text()}{line}\n")
    with pytest.raises(UserError, match=message):
        load_study(project / "workflow/studies", "cbam", "a test")


def test_detectors_that_are_compared_must_be_trained_alike(project: Path) -> None:
    path = project / "workflow/tiers/quick.yaml"
    tier = yaml.safe_load(path.read_text())
    tier["detection"]["stairnet"] = copy.deepcopy(tier["detection"]["ssd"])  # not an alias
    epochs = tier["detection"]["ssd"]["recipe"]["epochs"]
    tier["detection"]["stairnet"]["recipe"]["epochs"] += 1
    write_yaml(path, tier)
    named = rf"detection\.recipe\.epochs: {epochs} for vgg16\+ssd.*; {epochs + 1} for"
    with pytest.raises(UserError, match=named):
        quick("table7", root=project)
    tier["detection"]["ssd"]["recipe"]["epochs"] += 1
    write_yaml(path, tier)
    assert isinstance(quick("table7", root=project).specs["table7", "vgg16+ssd"], DetectionSpec)
    assert isinstance(quick("table4", root=project).specs["table4", "resnet50"], Spec)


def test_a_detector_may_have_another_size_and_recipe_on_a_backbone(project: Path) -> None:
    plan = quick("table7", root=project)
    recipes = [plan.specs["table7", f"{name}+stairnet"].recipe for name in ("vgg16", "mobilenet")]
    assert recipes[0] != recipes[1]
    path = project / "workflow/tiers/quick.yaml"
    tier = yaml.safe_load(path.read_text())
    tier["detection"]["ssd"]["backbones"]["mobilnet"] = tier["detection"]["ssd"]["backbones"].pop(
        "mobilenet"
    )
    write_yaml(path, tier)
    with pytest.raises(UserError, match=r"detection\.ssd\.backbones: .*'mobilnet'.*mobilenet"):
        quick("table7", root=project)


@pytest.mark.parametrize("detector", ["ssd", "stairnet"])
def test_a_batch_of_one_image_is_refused_where_a_detector_normalises_over_it(
    project: Path, detector: str
) -> None:
    path = project / "workflow/tiers/quick.yaml"
    tier = yaml.safe_load(path.read_text())
    tier["detection"]["stairnet"] = copy.deepcopy(tier["detection"]["ssd"])  # not an alias
    for name in ("faster-rcnn", detector):
        tier["detection"][name].pop("backbones", None)
        tier["detection"][name]["recipe"]["batch_size"] = 1
    write_yaml(path, tier)
    assert quick("table6", root=project).specs  # its BatchNorms keep their statistics
    with pytest.raises(UserError, match=rf"batch_size of at least 2 for {detector} on vgg16"):
        quick("table7", root=project)


@pytest.mark.parametrize(
    ("detector", "key", "message"),
    [
        ("ssd", "regions", r"'regions' has no meaning for ssd"),
        ("faster-rcnn", "reduction", r"'reduction' has no meaning for faster-rcnn"),
    ],
)
def test_keys_of_another_detector_are_refused(
    project: Path, detector: str, key: str, message: str
) -> None:
    path = project / "workflow/tiers/quick.yaml"
    tier = yaml.safe_load(path.read_text())
    tier["detection"][detector][key] = 5
    write_yaml(path, tier)
    with pytest.raises(UserError, match=message):
        quick("table6", "table7", root=project)
