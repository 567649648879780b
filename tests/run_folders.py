"""Run folders of Table 3 as trainings leave them, without training."""

import hashlib
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
    "started": 1e9, "finished": 1e9 + 10, "startup_seconds": 1.0, "seconds": 9.5,
    "compute_seconds": 8.5, "images_per_second": 100.0, "peak_memory_mb": 700.0,
    "dataset_fingerprint": "f00d", "dataset_composed_with": None, "processes": 1,
    "device": "a CPU", "threads": 1, "git_commit": "c0ffee", "git_dirty": False,
    "attention_ablation": "0.1.0", "python": "3.12.0", "torch": "2.9.0", "torchvision": "0.24.0",
    "numpy": "2.0.0",
}  # fmt: skip


def finished(plan: Plan, run: Run, top1: float, **facts: Any) -> Path:
    """Write a finished run's folder as a training leaves it, and return it.

    The facts replace those of `FACTS` and the last epoch's numbers, where None is not finite.
    """
    folder = plan.runs_folder / run.path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(run.canonical() + "\n")
    (folder / "weights.pt").write_bytes(b"weights")
    errors = {"validation_top1_error": top1, "validation_top5_error": top1 / 4}
    errors |= {name: facts[name] for name in errors if name in facts}
    header = ",".join(["epoch", *errors])
    cells = ",".join("inf" if error is None else str(error) for error in errors.values())
    history = "\n".join([header, f"1,{cells}", f"2,{cells}", ""])
    seals = {"weights_sha256": sha256(folder / "weights.pt")}
    seals["history_sha256"] = hashlib.sha256(history.encode()).hexdigest()
    metrics = {"status": "completed", "epochs": 2, **errors, **FACTS, **seals}
    finish(folder, metrics | facts, history)
    return folder


def write_metrics(plan: Plan, key: str, top1: list[float], **outcome: Any) -> None:
    """Finish a row's runs in Table 3, one for each error."""
    for run, error in zip(plan.row_runs("table3", key), top1, strict=False):
        finished(plan, run, error, **outcome)
