"""Published curves beside the study: read strictly, drawn without runs, judged without verdicts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.evidence.ledger import ledger
from attention_ablation.report.claims import claims_frame, write_claims
from attention_ablation.report.collect import collect
from attention_ablation.study.config import Study
from attention_ablation.study.references import read_curve
from tests.conftest import ROOT, plan_from, write_yaml

STUDY = Path("workflow/studies/cbam")


def last(name: str, column: str) -> float:
    """An error in a curve's last line, read without the project's code."""
    return float(pd.read_csv(ROOT / STUDY / "curves" / f"{name}.csv")[column].iloc[-1])


def test_the_studys_curves_have_the_protocol_that_is_said(study: Study) -> None:
    reference = study.references["pytorch-insight"]
    assert "100 epochs" in reference.protocol
    assert "after epochs 30, 60 and 90" in reference.protocol
    for curve in reference.curves.values():
        frame = pd.read_csv(ROOT / STUDY / curve.file)
        assert frame["epoch"].tolist() == list(range(1, 101))
        rates = frame.groupby("lr", sort=False)["epoch"].min()
        assert rates.to_dict() == {0.1: 1, 0.01: 31, 0.001: 61, 0.0001: 91}
        assert read_curve(ROOT / STUDY / curve.file)["epoch"] == frame["epoch"].tolist()
    # As published elsewhere for these logs: the lowest validation errors.
    best = pd.read_csv(ROOT / STUDY / "curves/resnet50_cbam.csv")["val_top1_error"].min()
    assert best == pytest.approx(22.37, abs=0.005)


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the working folder, with all tables."""
    monkeypatch.chdir(project)
    write_yaml(project / "config.yaml", {"study": "cbam", "tier": "tiny"})
    return project


def test_claims_show_the_differences_and_decide_nothing(here: Path) -> None:
    plan = plan_from(here / "config.yaml")
    runs = collect(plan)
    judged = ledger(plan, runs)
    frame = claims_frame(judged)
    lines = frame[frame["comparison"].str.contains("PytorchInsight")]
    found = {
        (line["claim"], line["metric"], line["comparison"].split(" (")[0]): line["difference"]
        for line in lines.to_dict("records")
    }
    cbam50 = last("resnet50_cbam", "val_top1_error") - last("resnet50", "val_top1_error")
    train50 = last("resnet50_cbam", "train_top1_error") - last("resnet50", "train_top1_error")
    cbam101, se101, plain101 = (
        last(f"resnet101{gate}", "val_top1_error") for gate in ("_cbam", "_se", "")
    )
    assert found == pytest.approx(
        {
            ("T4a", "top1_error", "resnet50+cbam < resnet50"): cbam50,
            ("T4a", "top1_error", "resnet101+cbam < resnet101"): cbam101 - plain101,
            ("T4b", "top1_error", "resnet101+cbam < resnet101+se"): cbam101 - se101,
            ("F4", "train_top1_error", "resnet50+cbam < resnet50"): train50,
            ("F4", "top1_error", "resnet50+cbam < resnet50"): cbam50,
        },
        abs=1e-4,
    )
    assert found["T4b", "top1_error", "resnet101+cbam < resnet101+se"] > 0
    assert set(lines["n"]) == {1}
    assert set(lines["verdict"]) == {"undecided"}
    assert lines["ci_low"].isna().all()
    # Neither the family of tests nor a claim's verdict counts them.
    assert judged.family == 0
    assert {claim.key: claim.verdict for claim in judged.claims}["T4a"] == "not run"
    without = ledger(load_plan_without_references(here), runs)
    assert [claim.verdict for claim in without.claims] == [c.verdict for c in judged.claims]
    assert without.family == judged.family
    assert len(claims_frame(without)) == len(frame) - len(lines)
    write_claims(plan, runs)
    note = (plan.folder / "claims.md").read_text()
    assert "T4b, top1_error: resnet101+cbam < resnet101+se: +0.04" in note
    assert "github.com/implus/PytorchInsight" in note


def load_plan_without_references(project: Path) -> Any:
    data = yaml.safe_load((project / STUDY / "study.yaml").read_text())
    data.pop("references")
    data["figures"].pop("figure4-reference")
    write_yaml(project / STUDY / "study.yaml", data)
    return plan_from(project / "config.yaml")


def test_the_figure_is_drawn_without_a_run_and_says_whose_it_is(here: Path) -> None:
    assert main(["render", "figure4-reference"]) == 0
    folder = here / "results/tiny/cbam/figures"
    svg = (folder / "figure4-reference.svg").read_text()
    for text in ("ResNet50 + BAM, validation", "ResNet101 + SE, train", "published by others, not"):
        assert text in svg
    assert (folder / "figure4-reference.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["render", "figure4-reference"]) == 0
    assert (folder / "figure4-reference.svg").read_text() == svg
    plan = plan_from(here / "config.yaml")
    assert len(plan.reference_files) == 6
    assert plan.study.figures["figure4-reference"].inputs(plan) == plan.reference_files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it cannot be read"),
        ("", "expected lines below the columns epoch, val_top1_error, train_top1_error"),
        ("epoch,val_top1_error\n1,2\n", "expected lines below the columns"),
        ("epoch,val_top1_error,train_top1_error\n1,2\n", "expected numbers"),
        ("epoch,val_top1_error,train_top1_error\n1,2,x\n", "expected numbers"),
        ("epoch,val_top1_error,train_top1_error\n1,2,3\n3,2,3\n", "expected epochs 1, 2, 3"),
        ("epoch,val_top1_error,train_top1_error\n1,2,nan\n", "errors from 0 to 100"),
        ("epoch,val_top1_error,train_top1_error\n1,2,101\n", "errors from 0 to 100"),
    ],
)
def test_a_file_that_is_no_curve_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_curve(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("references", "pytorch-insight", "curves", "resnet50", "row"), "table4:resnet5", "unknown row 'table4:resnet5'; did you mean"),
        (("references", "pytorch-insight", "curves", "resnet50+bam", "row"), "table4:resnet50", "'resnet50' stands for table4:resnet50 already"),
        (("references", "pytorch-insight", "curves", "resnet50", "file"), "curves/x.csv", "curves/x.csv: it cannot be read"),
        (("figures", "figure4-reference", "reference"), "x", "unknown reference 'x'"),
        (("figures", "figure4-reference", "panels", 0, "curves"), ["resnet5"], "unknown curve 'resnet5'; did you mean 'resnet50'"),
        (("figures", "figure4-reference", "table"), "table44", "unknown table 'table44'"),
    ],
)  # fmt: skip
def test_mistakes_are_told(here: Path, place: tuple[Any, ...], value: object, message: str) -> None:
    data = yaml.safe_load((here / STUDY / "study.yaml").read_text())
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    write_yaml(here / STUDY / "study.yaml", data)
    with pytest.raises(UserError, match=message):
        plan_from(here / "config.yaml")
