"""What make hands on of what is chosen on its command line, and what it refuses."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that is installed, whose programs print their arguments, one a line."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    shutil.copytree(ROOT / "workflow/profiles", tmp_path / "workflow/profiles")
    (tmp_path / "results").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("snakemake", "attention-ablation"):
        program = tmp_path / ".venv/bin" / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "utf8=$PYTHONUTF8"\n')
        program.chmod(0o755)
    (tmp_path / ".venv/.ready").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, env=inherited, text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip


SNAKEMAKE = ["--workflow-profile", "workflow/profiles/default", "--nolock"]


@pytest.mark.parametrize(
    ("arguments", "handed"),
    [
        (["plan"], ["plan"]),
        (["tables"], SNAKEMAKE),
        (
            ["plan", "TIER=quick", "TABLES=table1,table3", "SEEDS=0,1", "GPUS=8", "PRICE=2.5"],
            ["plan", "--set", "tier=quick", "--set", "seeds=[0,1]",
             "--set", "tables=[table1,table3]", "--gpus", "8", "--price", "2.5"],
        ),
        (
            ["tables", "TIER=quick", "TABLES=all", "SEEDS=0", "CORES=3"],
            [*SNAKEMAKE, "--cores", "3", "--config", "tier=quick", "seeds=[0]", "tables=all"],
        ),
        (["status", "TIER=ti'ny"], ["status", "--set", "tier=ti'ny"]),
        (["status", "STUDY=my own"], ["status", "--set", "study=my own"]),
        (["watch", "TABLES=table1"], ["status", "--watch", "--set", "tables=[table1]"]),
        (["verify", "SEEDS=a b,'$$(date)'"], ["verify", "--set", "seeds=[a b,'$(date)']"]),
        (["plan", "GPUS=tw'o", "PRICE=;x"], ["plan", "--gpus", "tw'o", "--price", ";x"]),
        (
            ["tables", "TIER=ti'ny", "TABLES=`id`", "CORES=t'wo"],
            [*SNAKEMAKE, "--cores", "t'wo", "--config", "tier=ti'ny", "tables=[`id`]"],
        ),
        (["tables", "OPTIONS=--until 'a b' X=1"], [*SNAKEMAKE, "--until", "a b", "X=1"]),
    ],
)  # fmt: skip
def test_what_is_chosen_is_handed_on_as_it_is(
    folder: Path, arguments: list[str], handed: list[str]
) -> None:
    done = make(folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*handed, "utf8=1"]


def test_a_terminal_has_bars_and_options_come_after_them(folder: Path) -> None:
    ours, theirs = pty.openpty()  # of what Snakemake logs to
    done = subprocess.run(
        ["make", "--no-print-directory", "tables", "OPTIONS=--logger other"], cwd=folder,
        stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    bars, plain = ["--logger", "rich"], ["--logger", "other"]  # of two the last one counts
    assert done.stdout.splitlines()[2:] == [*bars, "--nolock", *plain, "utf8=1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tables", "TABELS=table1"], "unknown TABELS; valid are: STUDY TIER TABLES SEEDS CORES"),
        (["plan", "tier=quick"], "unknown tier; valid are: STUDY TIER TABLES SEEDS CORES"),
        (["tables", "PROFILE=ti'ny"], "PROFILE=ti'ny: expected one of default gpus sge slurm"),
        (["tables", "PROFILE="], "PROFILE=: expected one of default gpus sge slurm"),
    ],
)
def test_what_is_not_known_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    done = make(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout
