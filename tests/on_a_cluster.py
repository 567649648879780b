"""A study of four trainings that goes through a scheduler, and what may hit one of them."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from attention_ablation.runs.folder import steps_saved
from attention_ablation.runs.lock import read_lock
from attention_ablation.study.expand import Plan
from attention_ablation.training.run import train
from tests.conftest import plan_from, shrink_study, write_yaml
from tests.daemons import Daemons
from tests.machines import ONE_CPU, in_one
from tests.test_workflow import BIN, environment

ROWS = """table,label,backbone,attention,params_m,gflops,top1_error,top5_error
table4,ResNet18,resnet18,none,,,,
table4,ResNet18 + SE,resnet18,se,,,,
table4,ResNet18 + CBAM,resnet18,cbam,,,,
table4,ResNet34,resnet34,none,,,,
"""


def four_trainings(project: Path, epochs: int) -> Plan:
    """Make the project, which is the working folder, one of four trainings; return its plan."""
    shrink_study(project, ROWS)
    path = project / "workflow/tiers/tiny.yaml"
    tier = yaml.safe_load(path.read_text())
    tier["classification"]["recipe"]["epochs"] = epochs
    write_yaml(path, tier)
    return plan_from(Path("config.yaml"))


def change_profile(name: str, train: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Change what a profile asks for a training, and keys of its own; return what it asks now."""
    path = Path("workflow/profiles", name, "config.yaml")
    profile = yaml.safe_load(path.read_text()) | keys
    asked: dict[str, Any] = profile["set-resources"]["train"]
    asked |= train
    profile["set-threads"]["train"] = 1
    write_yaml(path, profile)
    return asked


def run_folders(plan: Plan) -> dict[str, Path]:
    """Return each row's folder of its run."""
    return {key: plan.runs_folder / plan.row_runs("table4", key)[0].path for _, key in plan.specs}


def start(profile: str, *options: str) -> "subprocess.Popen[bytes]":
    """Start Snakemake with a profile."""
    profiled = ["--workflow-profile", f"workflow/profiles/{profile}", "--nolock"]
    with Path("snakemake.log").open("ab") as log:
        return subprocess.Popen(
            [str(BIN / "snakemake"), *profiled, *options],
            env=environment(), stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def finish(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Wait for Snakemake; return its exit status and the log of every start."""
    try:
        return process.wait(timeout=900), Path("snakemake.log").read_text()
    finally:
        process.kill()


def freeze(folders: list[Path], daemons: Daemons) -> None:
    """Stop each run's process once it has a checkpoint, so that what hits it hits it under way."""
    left = list(folders)

    def stopped_all() -> bool:
        for folder in list(left):
            if read_lock(folder).holder and steps_saved(folder):
                os.kill(process_of(folder), signal.SIGSTOP)
                left.remove(folder)
        return not left

    daemons.until(stopped_all, "trainings under way", pause=0.01)
    assert not any((folder / "metrics.json").exists() for folder in folders)


def process_of(folder: Path) -> int:
    """The process that trains a run, which is on this machine."""
    who = read_lock(folder).holder
    assert who
    return int(who.split()[-1])


def assert_as_undisturbed(plan: Plan, key: str, folder: Path) -> None:
    """Hold a row's run to the same one, trained here into `folder` without an interruption."""
    folder.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(plan.row_runs("table4", key)[0], folder, in_one(plan.data_folder), ONE_CPU)
    torch.set_num_threads(threads)
    ours, expected = (
        pd.read_csv(path / "history.csv").filter(regex="^(epoch|lr|train_|validation_)")
        for path in (run_folders(plan)[key], folder)
    )
    pd.testing.assert_frame_equal(ours, expected, check_exact=True)
