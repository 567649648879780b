"""The verb `evaluate`, of whichever study the config names."""

import shutil
from pathlib import Path

import pytest
import yaml

from attention_ablation.cli.main import main
from tests.conftest import write_yaml


def test_a_row_is_of_the_configs_study_unless_another_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    shutil.copytree("workflow/studies/cbam", "workflow/studies/mine")
    config = yaml.safe_load(Path("config.yaml").read_text())
    write_yaml(Path("config.yaml"), config | {"study": "mine"})
    write_yaml(Path("other.yaml"), config | {"study": "absent"})
    row = ["evaluate", "no-such-row", "--weights", "a.pth"]
    assert main(row) == 2
    assert "study mine: unknown row 'no-such-row'" in capsys.readouterr().err
    assert main([*row, "--study", "cbam"]) == 2
    assert "study cbam: unknown row 'no-such-row'" in capsys.readouterr().err
    assert main([*row, "--config", "other.yaml"]) == 2
    assert "other.yaml: unknown study 'absent'" in capsys.readouterr().err
