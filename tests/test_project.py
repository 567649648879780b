"""Files that must stay in step with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from attention_ablation.cli import main
from tests.conftest import ROOT

CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
    "torch": "pytorch",
}


def pyproject() -> dict[str, list[str]]:
    """Name and bound of every dependency, the developers' too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: list[str] = [
        name for extra in project["optional-dependencies"].values() for name in extra
    ]
    return {
        "python" + project["requires-python"]: [],
        **{d: [] for d in project["dependencies"] + extras},
    }


def test_environment_yml_is_in_step_with_pyproject() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {d for d in dependencies if isinstance(d, str)} - {"pip"}
    expected = set()
    for dependency in pyproject():
        name, bound = re.fullmatch(r"([a-z-]+)(>=.*)", dependency).groups()
        expected.add(CONDA_NAMES.get(name, name) + bound)
    assert conda == expected


def test_the_lock_pins_every_dependency_and_names_no_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock
    requirements = [line for line in lock.splitlines() if re.match(r"[a-z]", line)]
    assert all(re.match(r"[a-z0-9._-]+==\S+", line) for line in requirements)
    pinned = {line.split("==")[0] for line in requirements}
    names = {re.split(">=", d)[0] for d in pyproject()} - {"python"}
    assert names <= pinned


@pytest.mark.parametrize("name", ["config", "study", "tier"])
def test_schemas_are_what_the_models_generate(name: str, tmp_path: Path) -> None:
    assert main(["schema", str(tmp_path)]) == 0
    generated = (tmp_path / f"{name}.schema.json").read_text()
    assert (ROOT / f"workflow/schemas/{name}.schema.json").read_text() == generated


def test_every_key_of_the_config_is_explained() -> None:
    lines = (ROOT / "config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z]+:", line):
            assert lines[number - 1].startswith("# "), line
