"""Print the figures that the quick tier is held to, from a finished `make tables` and from probes.

    make tables && make benchmark

Run it on a machine that does nothing else. benchmarks/README.md holds its output.
"""

import json
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from attention_ablation.datasets.digits import ClutteredDigits
from attention_ablation.runs.folder import METRICS
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.files import merged
from attention_ablation.training.provenance import provenance

REPEATS = 3
TOP1 = "validation_top1_error"


def main() -> None:
    """Print a Markdown table: figure, measured, limit."""
    plan = load_plan(merged([Path("config.yaml")], {}))
    header()
    print("| figure | measured | limit |\n|---|--:|--:|")
    for name, measured, limit in [*trainings(plan), *probes(plan)]:
        print(f"| {name} | {measured} | {limit} |")


def header() -> None:
    """Print what the figures were measured with."""
    facts = provenance(torch.device("cpu"))
    cores, commit = len(os.sched_getaffinity(0)), str(facts["git_commit"])[:10]
    print(f"{facts['device']}, {cores} cores, Python {platform.python_version()},")
    print(f"torch {facts['torch']}, commit {commit}.\n")


def trainings(plan: Plan) -> list[tuple[str, str, str]]:
    """Figures of the finished trainings."""
    found = {
        path: json.loads((plan.runs_folder / path / METRICS).read_text()) for path in plan.runs
    }
    baseline = found[plan.row_runs("table4", "resnet50")[0].path]["validation_top1_error"]
    errors = {p: m[TOP1] for p, m in found.items() if TOP1 in m}
    maps = {p: m["validation_map_50"] for p, m in found.items() if TOP1 not in m}
    worst, least = max(errors, key=errors.__getitem__), min(maps, key=maps.__getitem__)
    detecting = sum(found[path]["seconds"] for path in maps)
    wall = max(m["finished"] for m in found.values()) - min(m["started"] for m in found.values())
    specs = [(plan.runs_folder / path / "spec.json").stat().st_mtime for path in plan.runs]
    tables = [path.stat().st_mtime for path in plan.folder.glob("tables/*")]
    whole = max(tables) - min(specs)  # of one undisturbed call
    compute = sum(m["compute_seconds"] for m in found.values())
    cores = len(os.sched_getaffinity(0))
    startup = sorted(m["startup_seconds"] for m in found.values())
    return [
        ("`make tables` after the install", f"{whole / 60:.1f} min", ""),
        (f"its training phase, {len(found)} trainings", f"{wall / 60:.1f} min", ""),
        ("sum of the trainings' compute seconds", f"{compute:.0f} s", ""),
        (f"training phase / (sum / {cores} cores)", f"{wall / compute * cores:.2f}", "1.20"),
        ("ResNet50 baseline, top-1 error", f"{baseline:.1f} %", "20 %"),
        (f"worst row ({worst.split('_')[0]}, {worst.split('_')[1]}), top-1 error",
         f"{errors[worst]:.1f} %", "60 %"),
        (f"the {len(maps)} detectors, sum of their seconds / {cores} cores",
         f"{detecting / cores / 60:.1f} min", "12 min"),
        (f"worst detector ({', '.join(least.split('_')[:3])}), mAP@.5",
         f"{maps[least]:.1f} %", "40 % at least"),
        ("imports and data of a training, median", f"{startup[len(startup) // 2]:.1f} s", "3 s"),
        ("imports and data of a training, slowest", f"{startup[-1]:.1f} s", "3 s"),
    ]  # fmt: skip


def probes(plan: Plan) -> list[tuple[str, str, str]]:
    """Figures of single commands, the best of three."""
    seeds = f"seeds={list(range(-(-5000 // (len(plan.runs) // len(plan.seeds)))))}"
    dry = [
        "snakemake",
        "--dry-run",
        "--quiet",
        "all",
        "--workflow-profile",
        "workflow/profiles/default",
    ]
    dataset = plan.specs["table4", "resnet50"].recipe.dataset
    assert isinstance(dataset, ClutteredDigits)
    dataset.compose("train", range(10))  # the base digits are read once
    torch.set_num_threads(1)
    images = 10_000
    compose_seconds = best(lambda: dataset.compose("train", range(images)))
    return [
        ("`snakemake -n`", f"{best(lambda: run(dry)):.1f} s", "3 s"),
        ("planning 5,000 runs", f"{best(lambda: run([*dry, '--config', seeds]), 1):.1f} s", "30 s"),
        ("`attention-ablation complexity`", f"{best(lambda: run(['attention-ablation', 'complexity'])):.1f} s", "30 s"),  # noqa: E501
        (f"cluttered digits, {dataset.image_size} px, one core",
         f"{images / compose_seconds:,.0f} images/s", "5,000 images/s at least"),
    ]  # fmt: skip


def run(command: list[str]) -> None:
    """Run a command, quietly."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def best(work: object, repeats: int = REPEATS) -> float:
    """Return the shortest time of some repeats, in seconds."""
    assert callable(work)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
