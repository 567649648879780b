"""docs/a-paper-of-your-own.md, followed word by word in a small copy of the project."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from attention_ablation.cli.main import main
from attention_ablation.evidence.complexity import measure
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.study.expand import load_plan
from tests.conftest import ROOT
from tests.test_workflow import as_installed, environment

GUIDE = (ROOT / "docs/a-paper-of-your-own.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.M | re.S)
FILES = re.findall(r"^`(workflow/\S+?)`.*?\n\n```\w+\n(.*?)^```$", GUIDE, re.M | re.S)
# What the guide says of ECA's networks: as printed, in units of 1024^2.
PRINTED = {"resnet18": 11.15, "resnet34": 20.79, "resnet50": 24.37, "resnet101": 42.49}


@pytest.fixture
def copy(project: Path) -> Path:
    """The project as `make` finds it after an install, whose quick tier takes seconds."""
    return as_installed(project)


def run(command: str) -> str:
    """Run a block as a person would; its output."""
    done = subprocess.run(
        ["bash", "-ec", command], env=environment(), text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def verb(command: str) -> list[str]:
    """The arguments of a call of the command."""
    name, *arguments = command.split()
    assert name == ".venv/bin/attention-ablation"
    return arguments


def test_the_guide_leads_from_printed_values_to_verdicts(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy)
    gates, count, make, protocol = COMMANDS
    assert verb(gates) == ["gates"]

    assert [Path(name).name for name, _ in FILES] == ["study.yaml", "rows.csv", "claims.yaml"]
    Path("workflow/studies/eca").mkdir()
    for name, text in FILES:
        Path(name).write_text(text)
    assert main(verb(count)) == 1
    unexplained = (
        "Not what is printed: resnet18 resnet18+eca (params_m, gflops), "
        "resnet50 resnet50+eca (params_m)."
    )
    assert unexplained in capsys.readouterr().out
    (explained,) = re.findall(r"^```yaml\n(discrepancies:.*?)^```$", GUIDE, re.M | re.S)
    with Path("workflow/studies/eca/study.yaml").open("a") as file:
        file.write(explained)
    assert main(verb(count)) == 0
    counted = capsys.readouterr().out
    assert counted.count(" match") == 3  # what CBAM's paper prints
    assert "25,557,118" in counted

    plan, tables, more_seeds = make.splitlines()
    assert more_seeds == tables + " SEEDS=0,1,2,3,4"  # minutes more, and nothing else
    made = run(f"{plan}\n{tables}")
    assert "2 tables with 7 rows need 7 trainings a seed" in made
    notes = Path("results/quick/eca/tables/resnet18.md").read_text()
    assert "arXiv:1910.03151; 100 epochs" in notes
    assert "cannot be compared with one another" in notes
    table = pd.read_csv("results/quick/eca/tables/resnet18.csv").set_index("row")
    assert table["seeds"].tolist() == [1] * 5
    gains = table["starting_gain"].to_dict()
    assert gains["resnet18+half"] == 0.5
    assert gains["resnet18+eca"] == pytest.approx(0.5, abs=0.01)
    assert gains["resnet18+eca-identity"] == pytest.approx(1, abs=0.02)
    claims = pd.read_csv("results/quick/eca/claims.csv")
    sizes = claims[claims["metric"] == "params_m"]
    assert sizes["verdict"].tolist() == ["supported"]

    run(protocol.partition("make plan")[0])
    planned = load_plan({"study": "eca", "tier": "imagenet-eca"})
    assert planned.follows_paper
    for spec in planned.specs.values():
        assert (spec.recipe.epochs, spec.backbone.stride) == (100, "v1.5")


@pytest.mark.parametrize("host", PRINTED)
def test_the_printed_sizes_are_those_of_the_network_in_units_of_1024(host: str) -> None:
    assert f"{PRINTED[host]} M" in GUIDE
    counted = measure(Backbone(name=host), Attention(gate="eca"))
    assert round(counted.params / 1024**2, 2) == PRINTED[host]
