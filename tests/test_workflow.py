"""The DAG as a user runs it: planned, run, killed, run again, and given mistakes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import write_yaml

BIN = Path(sys.executable).parent
PROFILE = ("--workflow-profile", "workflow/profiles/default", "--nolock")


def command(*arguments: str) -> list[str]:
    return [str(BIN / "snakemake"), *PROFILE, *arguments]


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=project, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def metrics(project: Path) -> dict[Path, int]:
    """The finished runs, and when each finished."""
    found = project.glob("results/tiny/runs/*/*/metrics.json")
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_dry_run_tells_rows_runs_and_shared_and_writes_nothing(project: Path) -> None:
    write_yaml(project / "config.yaml", {"study": "cbam", "tier": "quick"})
    done = snakemake(project, "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stdout
    assert "5 tables with 44 rows need 37 trainings a seed (7 rows share" in done.stdout
    assert not (project / "results").exists()


def test_the_whole_dag_then_nothing_to_do_then_one_more_seed(project: Path) -> None:
    done = snakemake(project)
    assert done.returncode == 0, done.stdout
    out = project / "results/tiny/cbam"
    assert {p.name for p in (out / "tables").iterdir()} == {
        f"table3.{x}" for x in ("csv", "md", "tex")
    }
    frame = pd.read_csv(out / "tables/table3.csv")
    assert frame["seeds"].tolist() == [1] * 4
    assert frame["top1_error"].between(0, 100).all()
    assert frame["params_m"].tolist() == [28.088024, 28.089624, 28.089624, 28.089624]
    assert set(pd.read_csv(out / "runs.csv")["status"]) == {"completed"}
    folder = next(iter(metrics(project))).parent
    for name in ("spec.json", "history.csv", "metrics.json", "train.log"):
        assert (folder / name).stat().st_size
    assert "epoch 2/2" in (folder / "train.log").read_text()

    before = metrics(project)
    again = snakemake(project)
    assert "Nothing to be done" in again.stdout

    more = snakemake(project, "--config", "seeds=[0, 1]")
    assert more.returncode == 0, more.stdout
    assert len(metrics(project)) == 8
    assert before.items() <= metrics(project).items()  # no finished run was touched
    assert pd.read_csv(out / "tables/table3.csv")["seeds"].tolist() == [2] * 4


def test_a_killed_run_picks_up_and_loses_no_finished_one(project: Path) -> None:
    process = subprocess.Popen(
        command(), cwd=project, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not metrics(project):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # trainings and all
    process.wait()
    before = metrics(project)
    assert before
    done = snakemake(project)
    assert done.returncode == 0, done.stdout
    after = metrics(project)
    assert len(after) == 4
    # Snakemake may not have noted the very last one; every other is as it was.
    kept = [path for path in before if after[path] == before[path]]
    assert len(kept) >= len(before) - 1
    assert (project / "results/tiny/cbam/tables/table3.md").exists()


def test_a_failed_run_fails_alone_and_the_tables_show_the_rest(project: Path) -> None:
    planned = snakemake(project, "--until", "spec")
    assert planned.returncode == 0, planned.stdout
    victim = sorted(project.glob("results/tiny/runs/*se*/seed-0/spec.json"))[0]
    good = victim.read_text()
    victim.write_text(good.replace('"epochs":2', '"epochs":3'))  # an edited spec is refused
    done = snakemake(project)
    assert done.returncode != 0
    assert len(metrics(project)) == 3
    text = (project / "results/tiny/cbam/tables/table3.md").read_text()
    assert "ResNet50 + channel (SE) n = 0" in text
    victim.write_text(good)
    before = metrics(project)
    again = snakemake(project)
    assert again.returncode == 0, again.stdout
    assert before.items() <= metrics(project).items()
    assert len(metrics(project)) == 4
    text = (project / "results/tiny/cbam/tables/table3.md").read_text()
    assert "n = 0" not in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tier=quikc", "config.yaml: unknown tier 'quikc'; did you mean 'quick'?"),
        ("tables=[table33]", "config.yaml: unknown table 'table33'; did you mean 'table3'?"),
        ("seeds=[0,0]", "config.yaml: seeds: expected each value once, got 0 twice; remove one"),
    ],
)
def test_a_mistake_stops_before_any_job_and_without_a_traceback(
    project: Path, setting: str, message: str
) -> None:
    done = snakemake(project, "--config", setting)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert not (project / "results").exists()
