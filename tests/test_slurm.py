"""A study through a real Slurm: time limit, scancel, daemons killed, a run that fails by itself."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from attention_ablation.runs.folder import read_outcome, steps_saved
from attention_ablation.runs.lock import read_lock
from attention_ablation.study.expand import Plan
from attention_ablation.training.run import train
from tests.conftest import plan_from, shrink_study, write_yaml
from tests.local_slurm import LocalSlurm, command, jobs, why_not
from tests.machines import ONE_CPU, in_one
from tests.test_workflow import BIN, environment

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

ROWS = """table,label,backbone,attention,params_m,gflops,top1_error,top5_error
table4,ResNet18,resnet18,none,,,,
table4,ResNet18 + SE,resnet18,se,,,,
table4,ResNet18 + CBAM,resnet18,cbam,,,,
table4,ResNet34,resnet34,none,,,,
"""
# Says which GPU a training was given, and whether another one had it at that time.
GUARD = """#!/bin/sh
echo "$CUDA_VISIBLE_DEVICES" >> {folder}/used
flock --nonblock --conflict-exit-code 99 {folder}/gpu-$CUDA_VISIBLE_DEVICES "$@"
code=$?
[ $code != 99 ] || echo "$@" >> {folder}/conflicts
exit $code
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[LocalSlurm]:
    with LocalSlurm() as slurm:
        yield slurm


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Four trainings, and the slurm profile made for this machine."""
    monkeypatch.chdir(project)
    shrink_study(project, ROWS)
    path = project / "workflow/tiers/tiny.yaml"
    tier = yaml.safe_load(path.read_text())
    tier["classification"]["recipe"]["epochs"] = 40
    write_yaml(path, tier)

    guard = project / "guard"
    guard.write_text(GUARD.format(folder=project))
    guard.chmod(0o755)
    path = project / "workflow/profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    assert profile["set-resources"]["train"]["gpu"] == 1
    profile["set-resources"]["train"] |= {"device": "cpu", "launcher": str(guard)}
    profile["set-threads"]["train"] = 1
    profile |= {"slurm-init-seconds-before-status-checks": 2, "latency-wait": 5, "retries": 2}
    write_yaml(path, profile)
    return plan_from(Path("config.yaml"))


def start() -> "subprocess.Popen[bytes]":
    options = ["--workflow-profile", "workflow/profiles/slurm", "--nolock"]
    without_accounting = ["--slurm-status-command", "squeue", "--slurm-no-account"]
    with Path("snakemake.log").open("ab") as log:
        return subprocess.Popen(
            [str(BIN / "snakemake"), *options, *without_accounting],
            env=environment(), stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def finish(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    try:
        return process.wait(timeout=900), Path("snakemake.log").read_text()
    finally:
        process.kill()


def freeze(folders: list[Path], slurm: LocalSlurm) -> None:
    """Stop each run's process once it has a checkpoint, so that what hits it hits it under way."""
    left = list(folders)

    def stopped_all() -> bool:
        for folder in list(left):
            if read_lock(folder).holder and steps_saved(folder):
                os.kill(process_of(folder), signal.SIGSTOP)
                left.remove(folder)
        return not left

    slurm.until(stopped_all, "trainings under way", pause=0.01)
    assert not any((folder / "metrics.json").exists() for folder in folders)


def process_of(folder: Path) -> int:
    """The process that trains a run, which is on this machine."""
    who = read_lock(folder).holder
    assert who
    return int(who.split()[-1])


def job_of(folder: Path) -> str:
    """Slurm's id of the job that trains a run."""
    return next(job for job, comment in jobs("RUNNING").items() if folder.parent.name in comment)


def test_accidents_of_a_cluster_lose_nothing(plan: Plan, slurm: LocalSlurm, tmp_path: Path) -> None:
    folders = {
        key: plan.runs_folder / plan.row_runs("table4", key)[0].path for _, key in plan.specs
    }
    hit = [folders["resnet34"], folders["resnet18+cbam"]]
    edited = folders["resnet18"] / "spec.json"
    edited.parent.mkdir(parents=True)
    good = plan.row_runs("table4", "resnet18")[0].canonical()
    edited.write_text(good.replace('"epochs":40', '"epochs":41'))
    process = start()
    freeze(hit, slurm)
    slurm.stop("slurmctld")
    slurm.stop("slurmd")
    slurm.start("slurmctld")
    slurm.start("slurmd")
    slurm.until(lambda: "UP" in command("scontrol", "ping", check=False), "the controller")
    command("scancel", job_of(hit[1]))
    job, pid = job_of(hit[0]), process_of(hit[0])
    command("scontrol", "update", f"JobId={job}", "EndTime=now")  # its time is over
    slurm.until(lambda: job in jobs("COMPLETING"), "the time limit")
    os.kill(pid, signal.SIGCONT)  # scancel does that itself, a time limit does not
    code, log = finish(process)
    assert code != 0, log
    assert {key: read_outcome(folder).status for key, folder in folders.items()} == dict.fromkeys(
        folders, "completed"
    ) | {"resnet18": "failed"}
    for folder in hit:
        text = (folder / "train.log").read_text()
        assert "stopped at step" in text  # the signal was met
        assert "going on from step" in text
    text = (edited.parent / "train.log").read_text()  # every attempt's
    assert text.count("expected it in a folder named") == 3
    assert text.count("what fails by itself is not tried again") == 2

    edited.write_text(good)
    before = {folder: (folder / "metrics.json").stat() for folder in (*hit, folders["resnet18+se"])}
    code, log = finish(start())
    assert code == 0, log
    assert read_outcome(edited.parent).status == "completed"
    assert before == {folder: (folder / "metrics.json").stat() for folder in before}
    assert log.count("has been submitted with SLURM jobid") >= 6
    assert set(Path("used").read_text().split()) == {"0", "1"}
    assert not Path("conflicts").exists()

    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    torch.set_num_threads(1)
    train(
        plan.row_runs("table4", "resnet18+cbam")[0],
        undisturbed,
        in_one(plan.data_folder),
        ONE_CPU,
    )
    ours, expected = (
        pd.read_csv(folder / "history.csv").filter(regex="^(epoch|lr|train_|validation_)")
        for folder in (folders["resnet18+cbam"], undisturbed)
    )
    pd.testing.assert_frame_equal(ours, expected, check_exact=True)
