"""A study through a real Slurm: time limit, scancel, daemons killed, a run that fails by itself."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from attention_ablation.runs.folder import read_outcome
from attention_ablation.study.expand import Plan
from tests.daemons import command
from tests.local_slurm import LocalSlurm, jobs, why_not
from tests.on_a_cluster import (
    assert_as_undisturbed,
    change_profile,
    finish,
    four_trainings,
    freeze,
    process_of,
    run_folders,
    start,
)

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

WITHOUT_ACCOUNTING = ("--slurm-status-command", "squeue", "--slurm-no-account")
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
    guard = project / "guard"
    guard.write_text(GUARD.format(folder=project))
    guard.chmod(0o755)
    asked = change_profile(
        "slurm",
        {"device": "cpu", "launcher": str(guard)},
        **{"slurm-init-seconds-before-status-checks": 2, "latency-wait": 5, "retries": 2},
    )
    assert asked["gpu"] == 1
    return four_trainings(project, epochs=40)


def job_of(folder: Path) -> str:
    """Slurm's id of the job that trains a run."""
    return next(job for job, comment in jobs("RUNNING").items() if folder.parent.name in comment)


def test_accidents_of_a_cluster_lose_nothing(plan: Plan, slurm: LocalSlurm, tmp_path: Path) -> None:
    folders = run_folders(plan)
    hit = [folders["resnet34"], folders["resnet18+cbam"]]
    edited = folders["resnet18"] / "spec.json"
    edited.parent.mkdir(parents=True)
    good = plan.row_runs("table4", "resnet18")[0].canonical()
    edited.write_text(good.replace('"epochs":40', '"epochs":41'))
    process = start("slurm", *WITHOUT_ACCOUNTING)
    freeze(hit, slurm)
    slurm.stop("slurmctld")
    slurm.stop("slurmd")
    slurm.start("slurmctld", "-D")
    slurm.start("slurmd", "-D")
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
    code, log = finish(start("slurm", *WITHOUT_ACCOUNTING))
    assert code == 0, log
    assert read_outcome(edited.parent).status == "completed"
    assert before == {folder: (folder / "metrics.json").stat() for folder in before}
    assert log.count("has been submitted with SLURM jobid") >= 6
    assert set(Path("used").read_text().split()) == {"0", "1"}
    assert not Path("conflicts").exists()

    assert_as_undisturbed(plan, "resnet18+cbam", tmp_path / "undisturbed")
