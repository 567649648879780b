"""Expansion, identities, and what a user is told about a mistake."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.runs.folder import read_run
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.study.config import Config
from attention_ablation.study.expand import load_plan
from tests.conftest import ROOT, plan_from, write_yaml


@pytest.mark.parametrize(
    "tier", ["quick", "small", "cifar100", "imagenette", "imagenet", "eurosat"]
)
@pytest.mark.parametrize("study", ["controls", "zoo"])
def test_the_other_studies_are_planned_at_every_tier_of_classification(
    study: str, tier: str
) -> None:
    plan = load_plan({"study": study, "tier": tier, "tables": "all"}, ROOT)
    assert len(plan.specs) == len(plan.study.rows)


def test_59_rows_are_54_trainings_a_seed() -> None:
    plan = plan_from(ROOT / "config.yaml", ROOT)
    assert len(plan.specs) == 59
    assert len(plan.runs) == 54
    shares = "59 rows need 54 trainings a seed (7 rows share another row's; 2 more only to start"
    assert shares in plan.summary
    # Table 1's SE row, Table 2's, Table 3's and Table 4's are one training.
    se = {
        plan.specs[table, "resnet50+se"].run_id
        for table in ("table1", "table2", "table3", "table4")
    }
    assert len(se) == 1
    seeds = load_plan(Config(study="cbam", tier="quick", seeds=[0, 1, 2]), ROOT)
    assert len(seeds.runs) == 162


def test_the_imagenet_tier_is_the_papers_protocol() -> None:
    plan = load_plan(Config(study="cbam", tier="imagenet"), ROOT)
    assert len(plan.runs) == 38
    recipes = {spec.recipe.model_dump_json() for spec in plan.specs.values()}
    assert len(recipes) == 1
    spec = plan.specs["table4", "resnet50+cbam"]
    recipe = spec.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (90, 256, 0.1)
    assert (recipe.momentum, recipe.weight_decay, recipe.zero_init_residual) == (0.9, 1e-4, False)
    assert recipe.schedule.model_dump() == {"name": "step", "every": 30, "gamma": 0.1}
    assert spec.attention.reduction == 16
    assert spec.backbone == Backbone(name="resnet50", width=1.0, stride="v1")


TIERS = sorted(path.stem for path in (ROOT / "workflow/tiers").glob("*.yaml"))


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_plans_all_tables_and_says_what_it_costs(tier: str) -> None:
    plan = load_plan(Config(study="cbam", tier=tier), ROOT)
    runs = {"quick": 54, "coco": 10, "voc": 11}.get(tier, 38)
    assert len(plan.runs) == runs * len(plan.seeds)
    header = (ROOT / f"workflow/tiers/{tier}.yaml").read_text().split("title:")[0]
    command = "make tables\n" if tier == "quick" else f"make tables TIER={tier}"
    assert command in header
    if tier != "quick":
        assert "# Cost: " in header


def test_tiers_that_follow_the_papers_protocol_say_so() -> None:
    plans = [load_plan({"study": "cbam", "tier": tier}, ROOT) for tier in TIERS]
    follow = [plan.config.tier for plan in plans if plan.follows_paper]
    assert follow == ["coco", "imagenet", "voc"]
    assert not load_plan({"study": "controls", "tier": "imagenet"}, ROOT).follows_paper


def test_the_published_recipes_are_the_sources() -> None:
    cifar = load_plan(Config(study="cbam", tier="cifar100"), ROOT).specs["table4", "resnet18"]
    recipe = cifar.recipe
    assert (cifar.backbone.stem, recipe.augmentation) == ("cifar", "pad-crop-flip")
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (200, 128, 0.1)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, True, 5e-4)
    assert recipe.schedule.model_dump(include={"at", "gamma"}) == {
        "at": [60, 120, 160],
        "gamma": 0.2,
    }
    short = load_plan(Config(study="cbam", tier="imagenet-short"), ROOT).specs["table4", "resnet50"]
    recipe = short.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (50, 256, 0.256)
    assert (recipe.momentum, recipe.weight_decay, recipe.decay_norms) == (0.875, 1 / 32768, False)
    assert (recipe.label_smoothing, short.backbone.stride) == (0.1, "v1.5")


def test_a_table_can_be_chosen_alone() -> None:
    plan = load_plan(Config(study="cbam", tier="quick", tables=["table3"]), ROOT)
    assert len(plan.runs) == 4
    assert plan.figures == ["forest"]


def test_a_figure_is_drawn_where_its_tables_are_chosen() -> None:
    plan = load_plan(Config(study="cbam", tier="quick", tables=["table4"], seeds=[0, 1]), ROOT)
    assert plan.figures == ["figure5", "figure4-reference", "forest"]
    assert len(plan.study.figures["figure5"].inputs(plan)) == 6
    everything = plan_from(ROOT / "config.yaml", ROOT)
    assert everything.figures == [
        "figure4", "figure5", "figure4-reference", "detections6", "detections7", "size", "forest",
    ]  # fmt: skip
    with_csv = [name for name in everything.figures if everything.study.figures[name].numbers]
    assert with_csv == ["figure5", "size", "forest"]


def test_names_do_not_make_a_run() -> None:
    plan = plan_from(ROOT / "config.yaml", ROOT)
    spec = plan.specs["table4", "resnet50+cbam"]
    assert spec.run_id.startswith("resnet50_channel+spatial-pool-k7-identity_")
    same = Spec.model_validate_json(spec.canonical())
    assert (same, same.run_id) == (spec, spec.run_id)


@given(st.permutations(["backbone", "attention", "recipe", "task"]))
def test_the_order_of_keys_does_not_make_a_run(order: list[str]) -> None:
    spec = next(iter(plan_from(ROOT / "config.yaml", ROOT).specs.values()))
    data = spec.model_dump()
    assert Spec.model_validate({key: data[key] for key in order}).run_id == spec.run_id


def test_every_key_of_a_spec_makes_another_run() -> None:
    spec = plan_from(ROOT / "config.yaml", ROOT).specs["table4", "resnet50+cbam"]
    ids = {spec.run_id}
    changes: list[dict[str, Any]] = [
        {"backbone": {"width": 0.5}}, {"backbone": {"stride": "v1.5"}},
        {"attention": {"reduction": 2}}, {"attention": {"norm": False}},
        {"recipe": {"epochs": 99}}, {"recipe": {"learning_rate": 0.3}},
        {"recipe": {"schedule": {"name": "cosine", "warmup_epochs": 0}}},
    ]  # fmt: skip
    for change in changes:
        data = spec.model_dump()
        for part, values in change.items():
            data[part] |= values
        ids.add(Spec.model_validate(data).run_id)
    assert len(ids) == 1 + len(changes)


def test_slugs_tell_the_studys_gates_apart() -> None:
    plan = plan_from(ROOT / "config.yaml", ROOT)
    attentions = plan.study.attentions
    assert len({attention.slug for attention in attentions.values()}) == len(attentions)
    assert Attention().slug == "none"
    assert attentions["parallel"].slug == "channel-parallel-spatial-pool-k7"


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from attention_ablation.cli import main as cli; from attention_ablation.runs import folder as runs;"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn'};"
        "sys.exit(' '.join(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "\n"


def edit(path: Path, *keys: str, value: Any) -> None:
    """Set a nested key of a YAML file."""
    data = part = yaml.safe_load(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    write_yaml(path, data)


CONFIG, TIER = "config.yaml", "workflow/tiers/tiny.yaml"
STUDY, ROWS = "workflow/studies/cbam/study.yaml", "workflow/studies/cbam/rows.csv"
RECIPE = ("classification", "recipe")
MISTAKES = [
    (CONFIG, ["teir"], "quick", r"config.yaml or --config: unknown key 'teir'; did you mean 'tier'\?"),
    (CONFIG, ["tier"], "quik", r"config.yaml or --config: unknown tier 'quik'; did you mean 'quick'\?"),
    (CONFIG, ["study"], "cbma", r"config.yaml or --config: unknown study 'cbma'; did you mean 'cbam'\?"),
    (CONFIG, ["tables"], ["tabel3"], r"unknown table 'tabel3'; did you mean 'table3'\?"),
    (CONFIG, ["tables"], 3, r"config.yaml or --config: tables: .* but got 3"),
    (CONFIG, ["seeds"], [1, 1], r"config.yaml or --config: seeds: expected each value once, got 1 twice"),
    (CONFIG, ["seeds"], [-1], r"config.yaml or --config: seeds.0: .* greater than or equal to 0, but got -1"),
    (CONFIG, ["seeds"], [], r"config.yaml or --config: seeds: .* at least 1 item"),
    (TIER, [*RECIPE, "epochs"], -3, r"tiny.yaml: classification.recipe.epochs: .* but got -3"),
    (TIER, [*RECIPE, "epochs"], "6", r"recipe.epochs: .* valid integer, but got '6'"),
    (TIER, [*RECIPE, "epoch"], 6, r"unknown key 'classification.recipe.epoch'; did you mean 'clas.*epochs'\?"),
    (TIER, [*RECIPE, "dataset", "image_sise"], 6, r"did you mean 'classification.recipe.dataset.image_size'\?"),
    (TIER, [*RECIPE, "dataset", "name"], "digits", r"tiny.yaml: .*dataset.* 'digits'"),
    (TIER, [*RECIPE, "dataset", "digit_size"], 99, r"digit_size of at most image_size \(\d+\), got 99"),
    (TIER, [*RECIPE, "batch_size"], 65, r"batch_size of at most dataset.train_images \(64\), got 65"),
    (CONFIG, ["tables"], [], r"config.yaml or --config: tables: .* at least 1 item"),
    (TIER, [*RECIPE, "weight_decay"], "1_000", r"weight_decay: .* but got '1_000'"),
    (TIER, [*RECIPE, "weight_decay"], math.inf, r"weight_decay: .* valid number, but got '.inf'"),
    (TIER, [*RECIPE, "learning_rate"], "1e999", r"learning_rate: .* finite number, but got inf"),
    (TIER, [*RECIPE, "batch_size"], 1, r"batch_size of at least 2, because BatchNorm .* got 1"),
    (TIER, [*RECIPE, "dataset", "seed"], 2**64, r"dataset.seed: .* less than 17592186044416, but got 18446744073709551616"),
    (CONFIG, ["seeds"], [2**64], r"seeds.0: .* less than 17592186044416, but got 18446744073709551616"),
    (CONFIG, ["seeds"], ["010"], r"seeds.0: .* valid integer, but got '010'"),
    (CONFIG, ["budget"], math.nan, r"budget: .* valid number, but got '.nan'"),
    (CONFIG, ["tier"], "../tiers/quick", r"config.yaml or --config: tier: expected a name of letters, .* got '../tiers/quick'"),
    (CONFIG, ["study"], "/etc", r"config.yaml or --config: study: expected a name of letters, .* got '/etc'"),
    (CONFIG, ["results"], "", r"config.yaml or --config: results: expected a folder without braces in its name, got ''"),
    (CONFIG, ["results"], "a{b}", r"config.yaml or --config: results: expected a folder without braces .* got 'a{b}'"),
    (CONFIG, ["results"], "Snakefile", r"config.yaml or --config: results: expected a folder, but Snakefile is none"),
    (CONFIG, ["results"], "Snakefile/a/b", r"config.yaml or --config: results: expected a folder, but Snakefile is none"),
    (STUDY, ["tables", "table 9"], {"title": "t", "section": "1", "columns": []}, r"tables.table 9: expected a name of letters, .* got 'table 9'"),
    (ROWS, ["22.95,6.59"], "²,6.59", r"line 15: top1_error: expected a number, got '²'"),
    (ROWS, ["table,label"], "label,table,label", r"rows.csv: expected the columns .* got label,table,label,"),
    (TIER, [*RECIPE, "augmentation"], "crop-flip", r"augmentation 'none' for cluttered-digits, got 'crop-flip'"),
    (TIER, [*RECIPE, "dataset"], {"name": "cifar10", "size": 3}, r"unknown key 'classification.recipe.dataset.size'"),
    (TIER, [*RECIPE, "dataset"], {"name": "folder", "folder": "a", "classes": 3, "train_images": 9, "image_sice": 32}, r"key 'classification.recipe.dataset.validation_images' is missing; add it.\n.*unknown key 'classification.recipe.dataset.image_sice'; did you mean '.*image_size'"),
    (TIER, [*RECIPE, "dataset"], {"name": "folder", "folder": "a/b", "classes": 2, "train_images": 64, "validation_images": 9}, r"expected the name of a folder .*, got 'a/b'; link it"),
    (TIER, [*RECIPE, "dataset"], {"name": "imagenet", "resize": 64}, r"a resize of at least image_size \(224\), got 64"),
    (TIER, [*RECIPE, "augmentation"], "pad-crop-flip", r"augmentation 'none' for cluttered-digits, got 'pad-crop-flip'"),
    (TIER, RECIPE, {"dataset": {"name": "imagenet"}, "augmentation": "pad-crop-flip", "epochs": 1, "batch_size": 1, "learning_rate": 1.0, "weight_decay": 0.0, "schedule": {"name": "step"}}, r"augmentation 'none' or 'crop-flip' for imagenet, got 'pad-crop-flip'"),
    (TIER, [*RECIPE, "schedule"], {"name": "cosine", "warmup_epochs": 2}, r"warmup_epochs below 2, got 2"),
    (TIER, ["classification", "width"], 0.001, r"a width that leaves resnet50 a channel everywhere, got 0.001"),
    (STUDY, ["attentions", "se", "reduction"], 999, r"rows.csv line 3: expected a reduction of at most 256, .* got 999"),
    (STUDY, ["attentions", "step"], {"poling": "avg"}, r"unknown key 'attentions.step.poling'; did you mean 'attentions.step.pooling'\?"),
    (STUDY, ["figures", "figure4", "panels", 0, "rows"], [], r"figures.figure4.panels.0.rows: .* at least 1 item"),
    (STUDY, ["figures", "figure4", "kind"], "eror-curves", r"unknown figures.figure4.kind 'eror-curves'; did you mean 'error-curves'\?"),
    (STUDY, ["figures", "figure5"], {"title": "t"}, r"study.yaml: the key 'figures.figure5.kind' is missing; add it"),
    (STUDY, ["figures", "figure5", "panels"], [], r"unknown key 'figures.figure5.panels'; valid are|did you mean"),
    (STUDY, ["figures", "figure5", "rows"], ["resnet50+cbm"], r"figures.figure5: table4: unknown row 'resnet50\+cbm'; did you mean 'resnet50\+cbam'\?"),
    (STUDY, ["figures", "figure5", "rows"], ["resnet50", "resnet18"], r"figures.figure5: expected rows with one backbone, .* got resnet18, resnet50"),
    (STUDY, ["tables", "claims"], {"title": "t", "section": "1", "columns": ["gflops"]}, r"'claims' is the name of something else that is rendered; take another name"),
    (STUDY, ["figures", "table3"], {"kind": "detections", "title": "t", "section": "1", "table": "table6", "rows": ["resnet50+faster-rcnn"]}, r"'table3' is the name of a figure; take another name"),
    (STUDY, ["metrics"], {"top1_error": {"heading": "Mine", "source": "seconds"}}, r"metrics: every study has a 'top1_error'; take another name"),
    (STUDY, ["attentions", "se"], {7: 1}, r"study.yaml: .*7"),
    (ROWS, ["22.95,6.59"], "22.95", r"line 15: expected 12 cells between commas, got 11"),
    (ROWS, ["table,label"], "tabel,label", r"rows.csv: expected the columns table,label,backbone"),
    (ROWS, ["top1_error"], "top1_accuracy", r"rows.csv line 1: unknown column 'top1_accuracy'; did you mean 'top1_error'\?"),
    (STUDY, ["figures", "figure5", "rows"], ["resnet50+CBAM"], r"table4: unknown row 'resnet50\+CBAM'; did you mean 'resnet50\+cbam'\?"),
    (TIER, ["protocol_of"], ["cbma"], r"tiny.yaml: protocol_of: unknown study 'cbma'; did you mean 'cbam'\?"),
    (TIER, ["classification", "reduction"], 99, r"rows.csv: table3: .* reduction of at most 64, .* got 99"),
    (TIER, ["classification", "backbones"], {"mobilnet": {"recipe": "tier's"}}, r"tiny.yaml: classification.backbones: unknown backbone 'mobilnet'; did you mean 'mobilenet'\?"),
    (STUDY, ["attentions", "cbam", "kernel"], 4, r"study.yaml: attentions.cbam.kernel: expected an odd kernel .* got 4"),
    (STUDY, ["attentions", "se", "pooling"], "mean", r"attentions.se.pooling: .* but got 'mean'"),
    (STUDY, ["figures", "figure4", "panels", 0, "rows"], ["resnet50+cbm"], r"table4: unknown row 'resnet50\+cbm'; did you mean 'resnet50\+cbam'\?"),
    (ROWS, ["resnet50,,parallel"], "resnet50,,paralel", r"rows.csv line 15: unknown attention 'paralel'; did you mean 'parallel'\?"),
    (ROWS, ["resnet50,,parallel"], "resnet5,,parallel", r"unknown backbone 'resnet5'; did you mean 'resnet50'\?"),
    (ROWS, ["table3,ResNet50 + channel (SE)"], "table9,x", r"line 12: unknown table 'table9'; did you mean 'table"),
    (ROWS, ["22.95,6.59"], "22.95x,6.59", r"line 15: top1_error: expected a number, got '22.95x'"),
    (ROWS, ["parallel,,,22.95"], "parallel,,22.95", r"line 15: expected 12 cells"),
    (ROWS, ["resnet50,,parallel"], "resnet50,,se", r"line 15: table3 has the row 'resnet50\+se' already"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "keys", "value", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_file(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    keys: list[str],
    value: Any,
    message: str,
) -> None:
    monkeypatch.chdir(project)
    plan_from(Path(CONFIG))  # right before the mistake
    if file == ROWS:
        text = Path(file).read_text()
        assert keys[0] in text
        Path(file).write_text(text.replace(keys[0], value))
    else:
        if value == {"mobilnet": {"recipe": "tier's"}}:
            recipe = yaml.safe_load(Path(file).read_text())["classification"]["recipe"]
            value = {"mobilnet": {"recipe": recipe}}
        edit(Path(file), *keys, value=value)
    with pytest.raises(UserError, match=message):
        plan_from(Path(CONFIG))


def test_files_that_cannot_be_read_are_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    Path(ROWS).unlink()
    with pytest.raises(UserError, match=r"rows\.csv: it cannot be read: No such file"):
        plan_from(Path(CONFIG))
    Path(CONFIG).write_bytes(b"study: \xff")
    with pytest.raises(UserError, match=r"config\.yaml: expected text in UTF-8"):
        plan_from(Path(CONFIG))
    Path(CONFIG).write_text("study: [cbam")
    with pytest.raises(UserError, match=r"config\.yaml: this is not valid YAML"):
        plan_from(Path(CONFIG))


def test_an_edited_or_moved_spec_is_refused(tmp_path: Path) -> None:
    run = next(iter(plan_from(ROOT / "config.yaml", ROOT).runs.values()))
    path = tmp_path / run.path / "spec.json"
    path.parent.mkdir(parents=True)
    path.write_text(run.canonical())
    assert read_run(path) == run
    path.write_text(run.canonical().replace('"epochs":', '"epochs":1'))
    with pytest.raises(UserError, match="edited or moved"):
        read_run(path)
    path.write_text(run.canonical().replace('"epochs":', '"epoch":'))
    with pytest.raises(UserError, match=r"did you mean 'spec\.recipe\.epochs'"):
        read_run(path)
    with pytest.raises(UserError, match="no such spec"):
        read_run(tmp_path / "spec.json")


def test_a_run_survives_its_json() -> None:
    for run in plan_from(ROOT / "config.yaml", ROOT).runs.values():
        assert Run.model_validate_json(run.canonical()) == run


def test_the_repositorys_config_is_what_its_comments_say() -> None:
    config = plan_from(ROOT / "config.yaml", ROOT).config
    assert (config.study, config.tier, config.tables, config.seeds) == (
        "cbam",
        "quick",
        "all",
        None,
    )


OTHER = {
    "title": "Another paper",
    "citation": "A. Author, 2024.",
    "attentions": {"none": {}, "max": {"pooling": "max"}},
    "counted_on": {"detectors": {"ssd": {"classes": 20, "image_size": 300}}},
    "tables": {
        "gain": {"title": "Table gain. Controls", "section": "2", "columns": ["top1_error"]},
        "sizes": {"title": "Sizes", "section": "3", "columns": ["params_m", "map_50"]},
    },
}
OTHER_ROWS = """table,attention,backbone,label,detector,map_50
gain,none,resnet18,plain,,
gain,max,resnet18,ours,,
sizes,max,vgg16,SSD,ssd,51.5
"""


def test_a_study_is_a_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the one of config.yaml in every command; its tables have other names and columns."""
    monkeypatch.chdir(project)
    folder = Path("workflow/studies/other")
    folder.mkdir()
    write_yaml(folder / "study.yaml", OTHER)
    (folder / "rows.csv").write_text(OTHER_ROWS)
    write_yaml(Path(CONFIG), {"study": "other", "tier": "tiny"})
    plan = plan_from(Path(CONFIG))
    assert plan.tables == ["gain", "sizes"]
    assert plan.specs["gain", "resnet18+max"].attention.slug == "channel-max-identity"
    assert plan.study.rows[2].printed == {"map_50": "51.5"}
    assert main(["status"]) == 0
    counts = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gain", "0", "0", "0", "0", "0", "0", "2"] in counts
    assert main(["complexity"]) == 0
    assert "gain     resnet18+max" in capsys.readouterr().out
    assert main(["complexity", "--study", "othr"]) == 2
    assert "--study: unknown study 'othr'; did you mean 'other'?" in capsys.readouterr().err
    write_yaml(Path(CONFIG), {"study": "othr", "tier": "tiny"})
    assert main(["complexity"]) == 2
    assert "config.yaml: unknown study 'othr'; did you mean 'other'?" in capsys.readouterr().err
