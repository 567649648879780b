"""docs/your-own-study.md: its files, as they stand there, are a study that can be planned."""

import re
from pathlib import Path

import pytest

from attention_ablation.cli.main import main
from attention_ablation.study.expand import load_plan
from tests.conftest import ROOT

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
