"""docs/your-own-study.md: its files, as they stand there, are a study that can be planned."""

import re
from pathlib import Path

import pytest
import yaml

from attention_ablation.cli.main import main
from attention_ablation.study.expand import load_plan
from tests.conftest import ROOT, write_yaml

BLOCKS = r"^```{}\n(.*?)^```$"
GUIDE = (ROOT / "docs/your-own-study.md").read_text()


def test_the_guides_study_is_planned(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    files = re.findall(r"^`(workflow/\S+)`.*?\n\n```\w+\n(.*?)^```$", GUIDE, re.M | re.S)
    assert [Path(name).name for name, _ in files] == ["study.yaml", "rows.csv", "claims.yaml"]
    for name, text in files:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    plan = load_plan({"study": "hosts", "tier": "quick"})
    assert len(plan.runs) == 5
    assert plan.figures == ["descent"]
    assert main(["complexity", "--study", "hosts"]) == 0  # what it prints is what networks have
    assert capsys.readouterr().out.count("match") == 2


def test_the_guides_rows_that_differ_in_the_recipe_are_planned(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    study, _, varied = (
        yaml.safe_load(text) for text in re.findall(BLOCKS.format("yaml"), GUIDE, re.M | re.S)
    )
    _, rows = re.findall(BLOCKS.format("csv"), GUIDE, re.M | re.S)
    folder = Path("workflow/studies/lengths")
    folder.mkdir()
    write_yaml(folder / "study.yaml", study | varied)
    (folder / "rows.csv").write_text(rows)
    plan = load_plan({"study": "lengths", "tier": "quick"})
    epochs = {key: spec.recipe.epochs for (_, key), spec in plan.specs.items()}
    assert epochs == {
        "resnet50": 5, "resnet50+se": 5, "resnet50@x4": 20, "resnet50+se@x4": 20
    }  # fmt: skip
    assert plan.figures == ["error-against-length"]
