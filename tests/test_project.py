"""Files that must stay in step with each other."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from attention_ablation.cli.main import main
from tests.conftest import ROOT

CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
    "torch": "pytorch",
}


def dependencies() -> dict[str, str]:
    """Every dependency's bound, Python's and the developers' too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["trackio"]  # which needs an older Pillow than the rest
    bounds = {"python": project["requires-python"]}
    for requirement in itertools.chain(project["dependencies"], *extras.values()):
        name, version = requirement.split(">=")
        bounds[name] = f">={version}"
    return bounds


def test_environment_yml_is_in_step_with_pyproject() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    found = {entry for entry in listed if isinstance(entry, str)} | {*listed[-1]["pip"]}
    assert found - {"pip", "--editable ."} == {
        CONDA_NAMES.get(k, k) + bound for k, bound in dependencies().items()
    }


def test_the_lock_pins_every_dependency_and_names_no_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock
    requirements = [line for line in lock.splitlines() if re.match(r"[a-z]", line)]
    assert all(re.match(r"[a-z0-9._-]+==\S+", line) for line in requirements)
    pinned = {line.split("==")[0] for line in requirements}
    assert dependencies().keys() - {"python"} <= pinned


@pytest.mark.parametrize("name", ["config", "study", "claims", "tier"])
def test_schemas_are_what_the_models_generate(name: str, tmp_path: Path) -> None:
    assert main(["schema", str(tmp_path)]) == 0
    generated = (tmp_path / f"{name}.schema.json").read_text()
    assert (ROOT / f"workflow/schemas/{name}.schema.json").read_text() == generated


def test_every_key_of_the_config_is_explained() -> None:
    lines = (ROOT / "config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z]+:", line):
            assert lines[number - 1].startswith("# "), line


def test_no_floor_imports_a_higher_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


VERB = '''"""Say hello."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def run(options: argparse.Namespace) -> int:
    print(f"hello {options.name}")
    return 7
'''


def test_a_verb_is_one_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src/attention_ablation", tmp_path / "attention_ablation")
    (tmp_path / "attention_ablation/cli/hello.py").write_text(VERB)
    command = [sys.executable, "-m", "attention_ablation.cli.main"]

    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True,
            capture_output=True, timeout=60,
        )  # fmt: skip

    done = called("hello", "world")
    assert (done.returncode, done.stdout) == (7, "hello world\n"), done.stderr
    assert "hello     Say hello.\n" in called("--help").stdout
