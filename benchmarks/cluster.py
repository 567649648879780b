"""Print what checkpoints cost, and what submitting 500 runs to a real Slurm here does.

    make benchmark-cluster

Needs Debian's slurm-wlm and munge, and root. benchmarks/README.md holds its output.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from attention_ablation.cost.cost import Cost
from attention_ablation.cost.rates import PublishedRates, load_published
from attention_ablation.spec.spec import DetectionSpec, Spec
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training import checkpoint
from attention_ablation.training.calibrate import measured_loop
from attention_ablation.training.machine import Machine
from benchmarks.quick import header
from tests.daemons import command
from tests.local_slurm import LocalSlurm, jobs, why_not

ROOT = Path(__file__).parents[1]
RUNS, TABLE, ROWS = 500, "table1", 4
IDLE_SECONDS = 60


def main() -> None:
    """Print two Markdown tables."""
    header()
    print("| checkpoint, imagenet tier | size | writing it | epoch here | share of it | "
          "epoch on an A100 | share of it |\n|---|--:|--:|--:|--:|--:|--:|")  # fmt: skip
    plan = load_plan({"study": "cbam", "tier": "imagenet"})
    for row in ("resnet50", "resnext101+cbam"):
        print(f"| {row} | {' | '.join(checkpoint_cost(plan, plan.specs['table4', row]))} |")
    print(f"\n| submission of {RUNS} runs to Slurm | measured | limit |\n|---|--:|--:|")
    if reason := why_not():
        raise SystemExit(f"Slurm cannot be started here: {reason}.")
    for name, measured, limit in submission():
        print(f"| {name} | {measured} | {limit} |")


def checkpoint_cost(plan: Plan, spec: Spec | DetectionSpec) -> list[str]:
    """Return size, seconds, and shares of an epoch here and of a published one."""
    images = spec.recipe.dataset.train_images
    loop, rate = measured_loop(spec, Machine("cpu"))
    assert rate
    times = []
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        for step in range(5):
            start = time.perf_counter()
            checkpoint.save(Path(folder), step, loop.state_dict())
            times.append(time.perf_counter() - start)
        size = next(Path(folder).iterdir()).stat().st_size
    seconds, epoch = statistics.median(times), images / rate
    published = Cost(plan, PublishedRates(load_published(), "a100")).hours(spec)
    assert published
    a100 = 3600 * published / spec.recipe.epochs
    return [
        f"{size / 1e6:.0f} MB", f"{seconds:.2f} s",
        f"{epoch / 3600:.1f} h", f"{100 * seconds / epoch:.4f} %",
        f"{a100:.0f} s", f"{100 * seconds / a100:.2f} %",
    ]  # fmt: skip


def submission() -> list[tuple[str, str, str]]:
    """Submit to a partition that is down, so that nothing runs beside the controller."""
    with tempfile.TemporaryDirectory() as name, LocalSlurm() as slurm:
        command("scontrol", "update", "PartitionName=main", "State=DOWN")
        project = Path(name)
        shutil.copytree(ROOT / "workflow", project / "workflow")
        for file in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / file, project)
        profile = project / "workflow/profiles/slurm/config.yaml"
        profile.write_text(profile.read_text().replace("train: 8", "train: 1"))  # all it has is 2
        seeds = list(range(RUNS // ROWS))
        start = time.perf_counter()
        with (project / "log").open("w") as log:
            process = subprocess.Popen(
                ["snakemake", "--workflow-profile", "workflow/profiles/slurm",
                 "--slurm-status-command", "squeue", "--slurm-no-account",
                 "--config", f"tables=[{TABLE}]", f"seeds={seeds}"],
                cwd=project, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        slurm.until(lambda: "Select jobs" in (project / "log").read_text(), "a plan", 120)
        planned = time.perf_counter() - start
        slurm.until(lambda: len(jobs("PENDING")) >= RUNS, f"{RUNS} jobs", 400)
        submitted = time.perf_counter() - start
        busy, children = cpu_seconds(process.pid)
        time.sleep(IDLE_SECONDS)
        waiting = sum(cpu_seconds(process.pid)) - busy - children
        process.kill()
        process.wait()
    return [
        ("planning, until the first job is chosen", f"{planned:.1f} s", "20 s"),
        ("until all are in the queue", f"{submitted:.0f} s", ""),
        ("cores that the controller used until then", f"{busy / submitted:.2f}", "1"),
        ("cores that the commands it called used", f"{children / submitted:.2f}", ""),
        (
            f"cores that both used in the {IDLE_SECONDS} s after",
            f"{waiting / IDLE_SECONDS:.2f}",
            "1",
        ),
    ]


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return the CPU time of a process, and that of the children it waited for, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, user_children, system_children = map(int, fields[11:15])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + system) / ticks, (user_children + system_children) / ticks


if __name__ == "__main__":
    main()
