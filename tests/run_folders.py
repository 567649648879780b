"""Run folders of Table 3 as trainings leave them, without training."""

import json
from pathlib import Path
from typing import Any

from attention_ablation.runs.folder import finish, sha256
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan

ROWS = ["resnet50+se", "resnet50+cbam", "resnet50+spatial+channel", "resnet50+parallel"]
SE, CBAM, SPATIAL_FIRST, PARALLEL = ROWS
# What `tiny` in conftest.py has, for the command line.
SEEDS = ["--set", "seeds=[0, 1, 2]"]
FACTS = {
    "git_commit": "c0ffee", "git_dirty": False, "torch": "2.9.0", "numpy": "2.0.0",
    "device": "a CPU", "threads": 1, "processes": 1, "seconds": 9.5, "compute_seconds": 8.5,
    "images_per_second": 100.0, "peak_memory_mb": 700.0, "dataset_fingerprint": "f00d",
}  # fmt: skip


def finished(plan: Plan, run: Run, top1: float, **facts: Any) -> Path:
    """Write a finished run's folder as a training leaves it, and return it."""
    folder = plan.runs_folder / run.path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(run.canonical() + "\n")
    (folder / "weights.pt").write_bytes(b"weights")
    errors = {"validation_top1_error": top1, "validation_top5_error": top1 / 4}
    header = ",".join(["epoch", *errors])
    lines = [f"{n},{','.join(map(str, errors.values()))}" for n in (1, 2)]
    (folder / "history.csv").write_text("\n".join([header, *lines, ""]))
    seals = {"weights_sha256": sha256(folder / "weights.pt")}
    seals["history_sha256"] = sha256(folder / "history.csv")
    metrics = {"status": "completed", "epochs": 2, **errors, **FACTS, **seals}
    finish(folder, metrics | facts)
    return folder


def write_metrics(plan: Plan, key: str, top1: list[float], **outcome: Any) -> None:
    """Write the metrics of a row's runs in Table 3, one for each seed, and nothing else."""
    for run, error in zip(plan.row_runs("table3", key), top1, strict=False):
        folder = plan.runs_folder / run.path
        folder.mkdir(parents=True, exist_ok=True)
        errors = {"validation_top1_error": error, "validation_top5_error": error / 4}
        metrics = {"status": "completed", **errors, **outcome}
        (folder / "metrics.json").write_text(json.dumps(metrics))
