"""A study through a real Grid Engine: a time limit, qdel while it runs and while it waits."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from attention_ablation.runs.folder import read_outcome
from attention_ablation.study.expand import Plan
from tests.daemons import command
from tests.local_sge import LocalGridEngine, why_not
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

PROFILE = Path("workflow/profiles/sge/config.yaml")
# The first attempt of one run has a time limit that ends it while it is frozen, so that it is
# killed without having met a warning.
HIT = "wildcards.run.startswith('resnet34_') and attempt == 1"
# The runs that are hit come before the others, of which one is to wait meanwhile.
LATER = "not wildcards.run.startswith('resnet34_') and 'spatial' not in wildcards.run"
LIMITED = f"'-l gpu=1' + (',h_rt=60' if {HIT} else '') + (' -p -100' if {LATER} else '')"
# Says where a training would lock the GPU that it takes.
GUARD = """#!/bin/sh
echo "${{TMPDIR:-/tmp}}" >> {folder}/locks
exec "$@"
"""


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGridEngine]:
    with LocalGridEngine() as grid:
        yield grid


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Four trainings, and the sge profile made for this machine."""
    monkeypatch.chdir(project)
    guard = project / "guard"
    guard.write_text(GUARD.format(folder=project))
    guard.chmod(0o755)
    status = "workflow/profiles/sge/status.sh"
    assert f"{status} 60" in PROFILE.read_text()
    change_profile(
        "sge",
        {"device": "cpu", "launcher": str(guard), "sge": LIMITED},
        **{"cluster-generic-status-cmd": f"{status} 2", "latency-wait": 5, "retries": 2,
           "seconds-between-status-checks": 2},
    )  # fmt: skip
    return four_trainings(project, epochs=12)


def job_of(folder: Path) -> str:
    """Grid Engine's id of the job that trains a run."""
    environment = Path(f"/proc/{process_of(folder)}/environ").read_text().split("\0")
    return next(line for line in environment if line.startswith("JOB_ID=")).partition("=")[2]


def jobs(state: str = "prs") -> list[str]:
    """Grid Engine's ids of the jobs that wait (p), run (r) or are suspended (s)."""
    return [line.split()[0] for line in command("qstat", "-s", state).splitlines()[2:]]


def test_accidents_of_a_cluster_lose_nothing(
    plan: Plan, grid: LocalGridEngine, tmp_path: Path
) -> None:
    folders = run_folders(plan)
    limited, deleted = folders["resnet34"], folders["resnet18+cbam"]
    process = start("sge")
    freeze([limited, deleted], grid)
    waiting = jobs("p")[:1]  # none where it was submitted so early that it is over
    for job in waiting:
        command("qdel", job)
    pid = process_of(deleted)
    command("qdel", job_of(deleted))
    os.kill(pid, signal.SIGCONT)
    job = job_of(limited)
    grid.until(lambda: job not in jobs(), "the time limit")
    code, log = finish(process)
    assert code == 0, log
    assert {read_outcome(folder).status for folder in folders.values()} == {"completed"}
    texts = {folder: (folder / "train.log").read_text() for folder in (limited, deleted)}
    assert "stopped at step" in texts[deleted]  # the warning was met
    assert "stopped at step" not in texts[limited]
    assert all("going on from step" in text for text in texts.values())
    assert log.count("with external jobid") == 4 + 2 + len(waiting)
    assert set(Path("locks").read_text().split()) == {"/tmp"}
    assert_as_undisturbed(plan, "resnet18+cbam", tmp_path / "deleted")
    assert_as_undisturbed(plan, "resnet34", tmp_path / "limited")
