"""docs/your-own-module.md, followed word by word in a small copy of the project."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, write_yaml
from tests.test_workflow import BIN, as_installed, environment

GUIDE = (ROOT / "docs/your-own-module.md").read_text()


def blocks(language: str) -> list[str]:
    """The guide's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


# A baseline in both tables is enough to stand beside.
ROWS = """table,label,backbone,detector,attention,params_m,gflops,top1_error,top5_error,map_50,\
map_75,map
table1,ResNet50,resnet50,,none,25.56,3.86,24.56,7.50,,,
table4,ResNet50,resnet50,,none,25.56,3.858,24.56,7.50,,,
"""


@pytest.fixture
def copy(project: Path) -> Path:
    """The project as `make` finds it after an install, with few rows and a tier of seconds."""
    folder = project / "workflow/studies/cbam"
    (folder / "rows.csv").write_text(ROWS)
    (folder / "claims.yaml").unlink()  # it compares rows that are gone
    study = yaml.safe_load((folder / "study.yaml").read_text())
    study["tables"] = {name: study["tables"][name] for name in ("table1", "table4")}
    write_yaml(
        folder / "study.yaml", study | {"figures": {}, "discrepancies": {}, "references": {}}
    )
    return as_installed(project)


def run(project: Path, command: str) -> str:
    """Run a block as a person would; its output."""
    done = subprocess.run(
        ["bash", "-ec", command], cwd=project, env=environment(), text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_guide_leads_to_a_row_in_the_tables(copy: Path) -> None:
    (module,), (entry,), (rows,) = blocks("python"), blocks("yaml"), blocks("csv")
    check, make, read = blocks("sh")

    (copy / "my_module.py").write_text(module)
    printed, (shown,) = run(copy, check), blocks("text")
    lines = [line.split(": ")[0] for line in shown.splitlines()]
    assert [line.split(": ")[0] for line in printed.splitlines()] == lines
    assert next(x for x in shown.splitlines() if "counted" in x) in printed

    folder = copy / "workflow/studies/cbam"
    study = (folder / "study.yaml").read_text()
    assert study.count("attentions:\n") == 1
    (folder / "study.yaml").write_text(study.replace("attentions:\n", "attentions:\n" + entry))
    with (folder / "rows.csv").open("a") as file:
        file.write(rows)
    made = run(copy, make)
    assert "1 table with 2 rows needs 2 trainings a seed" in made

    printed = run(copy, read)
    assert "| ResNet50 + MyGate" in printed
    found = pd.read_csv(copy / "results/quick/cbam/tables/table1.csv").set_index("row")
    line = found.loc["resnet50+mygate"]
    # 16 gates of 5 weights, and 5 multiplications for each channel.
    assert line["params_m"] == 25.557032 + 16 * 5 / 1e6
    channels = 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048
    assert line["gflops"] == pytest.approx(3.857973 + 5 * channels / 1e9, abs=1e-6)
    assert 0 < line["top1_error"] <= 100
    assert line["seeds"] == 1
    (kept,) = copy.glob("results/*/runs/*mygate*/seed-0/my_module.py")
    assert kept.read_bytes() == (copy / "my_module.py").read_bytes()
    # The other table's row is the same training.
    planned = run(copy, f"{BIN}/attention-ablation plan --set 'tables=[table1, table4]' --runs")
    assert printed.split("results/quick/runs/")[1].split("/")[0] in planned
    assert planned.count("resnet50_mygate_") == 1
    page = (copy / "results/quick/cbam/report.html").read_text()
    assert "ResNet50 + MyGate" in page
