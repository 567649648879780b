"""A study with metrics of its own, and with nothing of CBAM's tables: another paper's."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.evidence.complexity import count_rows
from attention_ablation.report.collect import collect
from attention_ablation.report.results import number, table_results
from attention_ablation.runs.records import GRADCAM_MEANS, Metrics
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.metrics import COUNTED, METRICS, RUN_NUMBERS
from tests.conftest import write_yaml
from tests.run_folders import finished

STUDY: dict[str, Any] = {
    "title": "Gates and how fast they are",
    "citation": "Somebody. 2024.",
    "attentions": {"none": {}, "se": {"pooling": "avg"}, "wide": {"pooling": "avg&max"}},
    "metrics": {
        "speed": {
            "heading": "Speed",
            "unit": "images/s",
            "better": "higher",
            "digits": 0,
            "source": "images_per_second",
        },
        "loss": {"heading": "Loss", "digits": 5, "source": "validation_loss"},
    },
    "counted_on": {"image_size": 32, "classes": 10},
    "tables": {
        "gain": {"title": "Controls", "section": "2", "columns": ["params_m", "speed", "loss"]}
    },
    "figures": {
        "curves": {
            "kind": "error-curves",
            "title": "Losses",
            "section": "2",
            "metric": "loss",
            "panels": [{"title": "ResNet18", "table": "gain", "rows": ["resnet18", "resnet18+se"]}],
        }
    },
}
ROWS = """table,label,backbone,attention,speed,params_m
gain,Baseline,resnet18,none,90,
gain,SE,resnet18,se,120.5,
gain,Wide,resnet18,wide,,11.78
"""
CLAIM = {"table": "gain", "metrics": ["speed"], "rows": ["resnet18+se", "resnet18"]}
CHOICE = ["--set", "seeds=[0, 1, 2]"]


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """That study, whose three rows are trained with speeds of about 100, 120 and 110."""
    monkeypatch.chdir(project)
    write_study()
    write_yaml(project / "config.yaml", {"study": "fast", "tier": "tiny"})
    plan = load_plan({"study": "fast", "tier": "tiny", "seeds": [0, 1, 2]})
    for key, speed in (("resnet18", 100), ("resnet18+se", 120), ("resnet18+wide", 110)):
        for run in plan.row_runs("gain", key):
            folder = finished(
                plan, run, 20.0, images_per_second=speed + run.seed * (1 + (speed == 120)),
                validation_loss=0.123456 + run.seed,
            )  # fmt: skip
            lines = ["epoch,train_loss,validation_loss", "1,2,3", "2,1,1.5", ""]
            (folder / "history.csv").write_text("\n".join(lines))
    return plan


def write_study(rows: str = ROWS, **changes: Any) -> None:
    folder = Path("workflow/studies/fast")
    folder.mkdir(exist_ok=True)
    write_yaml(folder / "study.yaml", STUDY | changes)
    (folder / "rows.csv").write_text(rows)
    claim = {"place": "section 2", "says": "SE is faster.", "comparisons": [
        {**CLAIM, "predicate": "greater"}]}  # fmt: skip
    write_yaml(folder / "claims.yaml", {"claims": {"A": claim}})


def test_a_metric_of_a_studys_own_is_in_tables_best_cells_claims_and_the_page(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "complexity", "gain", "claims", "curves", "report", *CHOICE]) == 0
    markdown = (plan.folder / "tables/gain.md").read_text()
    assert markdown.startswith("**Table gain. Controls (section 2)**\n")
    lines = [line.split("|") for line in markdown.splitlines() if line.startswith("|")]
    shown = [[cell.strip() for cell in line[4:6]] for line in lines]
    assert shown[0] == ["Speed (images/s)", "paper"]
    # More is better, ours and the paper's.
    assert shown[2:] == [["101 ± 1", "90"], ["**122 ± 2**", "**120.5**"], ["111 ± 1", "-"]]
    assert "Loss of the last epoch on the validation set" in markdown
    assert "Params: counted on the full-size network, 32 px, 10 classes." in markdown
    csv = (plan.folder / "tables/gain.csv").read_text()
    assert ",speed,speed_sd,speed_paper,loss,loss_sd,loss_paper\n" in csv
    assert ",122.0,2.0,120.5,1.12346,1.0,\n" in csv
    tex = (plan.folder / "tables/gain.tex").read_text()
    assert r"\caption{Table gain: Controls (section 2)}" in tex
    assert r"\multicolumn{2}{c}{Speed (images/s)}" in tex
    claims = (plan.folder / "claims.csv").read_text()
    assert "A,gain,speed,resnet18+se > resnet18,21.0," in claims
    page = (plan.folder / "report.html").read_text()
    assert "Table gain. Controls" in page
    assert "supported</span> resnet18+se &gt; resnet18, Speed (gain): +21 images/s, 95 % in" in page
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    cell = data["cells"]["gain resnet18+se speed"]
    assert cell["title"] == "Table gain, SE: Speed (images/s)"
    assert "Ours: 122 ± 2 images/s, mean and standard deviation of 3 seeds. The" in cell["text"]
    assert ["Speed", "122 images/s"] in data["runs"][cell["runs"][1]]["facts"]
    assert "loss" in (plan.folder / "figures/curves.svg").read_text()
    assert main(["where", "gain", "resnet18+se", "speed", *CHOICE]) == 0
    assert "seed 1: completed, 122 images/s" in capsys.readouterr().out


def test_a_comparison_of_what_is_better_when_higher_says_how(plan: Plan) -> None:
    path = Path("workflow/studies/fast/claims.yaml")
    path.write_text(path.read_text().replace("predicate: greater", "").replace(", }", "}"))
    with pytest.raises(
        UserError, match=r"comparisons.0: expected a predicate, because more of speed"
    ):
        load_plan({"study": "fast", "tier": "tiny"})


def test_networks_are_counted_on_the_studys_own_size(plan: Plan) -> None:
    first, *_, last = count_rows(plan.study)
    assert first.params == 11_689_512 - 990 * 513  # fewer classes than ImageNet
    assert last.verdict == "MISMATCH"  # 11.78 M has ImageNet's classes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"speed": STUDY["metrics"]["speed"] | {"source": "image_per_second"}}},
         "metrics.speed.source: unknown number 'image_per_second'; did you mean 'images_per_sec"),
        ({"tables": {"gain": STUDY["tables"]["gain"] | {"columns": ["sped"]}}},
         "tables.gain.columns: unknown metric 'sped'; did you mean 'speed'"),
        ({"metrics": STUDY["metrics"] | {"seeds": STUDY["metrics"]["loss"]}},
         "metrics: 'seeds' is the name of another column"),
        ({"figures": {"curves": STUDY["figures"]["curves"] | {"metric": "los"}}},
         "figures.curves: unknown metric 'los'; did you mean 'loss'"),
    ],
)  # fmt: skip
def test_a_metric_that_is_not_there_is_named_with_the_nearest(
    plan: Plan, changes: dict[str, Any], message: str
) -> None:
    write_study(**changes)
    with pytest.raises(UserError, match=message):
        load_plan({"study": "fast", "tier": "tiny"})


def test_a_detectors_size_is_given_by_the_study(plan: Plan) -> None:
    rows = "table,label,backbone,detector,attention\ngain,SSD,vgg16,ssd,none\n"
    write_study(rows)
    (Path("workflow/studies/fast") / "claims.yaml").unlink()
    with pytest.raises(UserError, match=r"line 2: expected ssd below counted_on\.detectors in"):
        load_plan({"study": "fast", "tier": "tiny"})


def test_every_metric_has_its_number_in_runs_csv(plan: Plan) -> None:
    named = {metric.source for metric in METRICS.values()}
    assert named - set(COUNTED) <= set(RUN_NUMBERS)
    fields = Metrics.model_fields.items()
    facts = {n for n, f in fields if float in (f.annotation, *get_args(f.annotation))}
    recorded = facts - {"started", "finished"}
    recorded |= {f"gradcam_{name}" for name in GRADCAM_MEANS.values()}
    others = set(RUN_NUMBERS) - recorded
    assert recorded <= set(RUN_NUMBERS)
    assert {name.partition("_")[0] for name in others} == {"train", "validation"}
    assert plan.study.metrics.keys() == METRICS.keys() | {"speed", "loss"}
    results = table_results(plan, "gain", collect(plan), {})
    assert list(results.columns) == ["params_m", "speed", "loss"]


@pytest.mark.parametrize(
    ("name", "shown"), [("table3", "3"), ("table3a", "3a"), ("gain", "gain"), ("tables", "tables")]
)
def test_a_table_is_called_by_its_number_or_its_name(name: str, shown: str) -> None:
    assert number(name) == shown
