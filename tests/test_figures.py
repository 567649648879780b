"""The contract of a figure: a newcomer's kind is one file, planned, drawn, verified and refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from attention_ablation.study.config import Study
from tests.conftest import ROOT, write_yaml

BARS = '''
"""Bars: what became of rows, a bar for each."""

from typing import ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_text
from attention_ablation.study.figure import RowsFigure


class BarsFigure(RowsFigure):
    """What became of rows, a bar for each."""

    run_file: ClassVar[str] = "metrics.json"
    numbers: ClassVar[str] = "The bars of {name}."

    kind: Literal["bars"]
    most: int = Field(3, ge=1, description="How many bars there may be.")

    def check(self, study, where):
        if len(self.rows) > self.most:
            raise UserError(f"{where}: expected at most {self.most} rows; leave some out.")

    def csv(self, plan):
        from attention_ablation.runs.folder import read_outcome

        folders = [plan.runs_folder / plan.row_runs(self.table, row)[0].path for row in self.rows]
        states = [read_outcome(folder).status for folder in folders]
        return "row,status\\n" + "".join(f"{r},{s}\\n" for r, s in zip(self.rows, states))

    def write(self, plan, name):
        from attention_ablation.figures.parts.drawing import finish, panels

        write_text(plan.folder / "figures" / f"{name}.csv", self.csv(plan))
        figure, (ax,) = panels(1, 6)
        ax.bar(self.rows, range(len(self.rows)))
        finish(plan, name, figure, "a caption")
'''
SCRIPT = """
import sys
from pathlib import Path

from attention_ablation.cli.main import main
from attention_ablation.study.expand import load_plan
from attention_ablation.study.files import merged

plan = load_plan(merged([Path("config.yaml")], {}))
print("planned", *plan.study.figures["figure9"].inputs(plan))
print("heavy", *{"matplotlib", "pandas", "torch"} & {*sys.modules})
for verb in (["schema", "."], ["render", "figure9"], ["verify"]):
    print("rc", *verb, main(verb))
(plan.folder / "figures/figure9.csv").write_text("edited")
print("rc edited", main(["verify"]))
"""


@pytest.fixture
def newcomer(project: Path) -> Path:
    """A project with Table 3 and a figure of a kind that one new file brings."""
    package = shutil.copytree(ROOT / "src/attention_ablation", project / "src/attention_ablation")
    (package / "figures/bars.py").write_text(BARS)
    path = project / "workflow/studies/cbam/study.yaml"
    study = yaml.safe_load(path.read_text())
    rows = ["resnet50+se", "resnet50+cbam"]
    figure = {"kind": "bars", "title": "Bars", "section": "9", "table": "table3", "rows": rows}
    study["figures"] = {"figure9": figure}
    write_yaml(path, study)
    return project


def run(project: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    found = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, text=True, capture_output=True
    )
    return found.stdout + found.stderr


def test_a_new_kind_of_figure_is_one_new_file(newcomer: Path) -> None:
    printed = run(newcomer, "-c", SCRIPT).splitlines()
    assert printed[0].split()[0] == "planned"
    assert [path.rpartition("/")[2] for path in printed[0].split()[1:]] == ["metrics.json"] * 2
    assert printed[1] == "heavy"  # nothing that is slow to import
    said = "\n".join(printed)
    assert '"bars"' in (newcomer / "study.schema.json").read_text()
    for line in ("rc schema . 0", "rc render figure9 0", "rc verify 0", "rc edited 1"):
        assert line in said
    out = newcomer / "results/tiny/cbam/figures"
    assert "Figure 9. Bars (section 9)" in (out / "figure9.svg").read_text()
    assert (out / "figure9.png").read_bytes()[:4] == b"\x89PNG"
    jobs = run(newcomer, "-m", "snakemake", "-n", "--forcerun", "figure_and_csv", "--", str(
        (out / "figure9.csv").relative_to(newcomer)
    ))  # fmt: skip
    assert "rule figure_and_csv" in jobs
    assert "figures/figure9.svg" in jobs
    study = newcomer / "workflow/studies/cbam/study.yaml"
    text = study.read_text()
    study.write_text(text.replace("kind: bars", "kind: bar"))
    assert "unknown figures.figure9.kind 'bar'; did you mean 'bars'?" in run(newcomer, "-c", SCRIPT)
    study.write_text(text.replace("kind: bars", "kind: bars\n    most: 1"))
    assert "figures.figure9: expected at most 1 rows; leave some" in run(newcomer, "-c", SCRIPT)


def test_a_figure_has_the_papers_number_or_its_title_alone(study: Study) -> None:
    assert {name: figure.heading(name) for name, figure in study.figures.items()} == {
        "figure4": "Figure 4. Error curves during training",
        "figure5": "Figure 5. Grad-CAM visualization results",
        "figure4-reference": "Error curves that others published",
        "detections6": "Found and true boxes in validation images, Faster R-CNN",
        "detections7": "Found and true boxes in validation images, SSD and StairNet",
        "size": "Error against size",
        "forest": "Forest plot: all comparisons of the claims, with their 95 % intervals",
    }
