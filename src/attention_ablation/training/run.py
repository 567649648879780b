"""The one training loop: from a run's spec to its history and metrics."""

import csv
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from attention_ablation.study.runs import FAILURE, HISTORY, finish
from attention_ablation.study.spec import Run
from attention_ablation.training.classify import Classification
from attention_ablation.training.provenance import provenance
from attention_ablation.training.schedule import learning_rate

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(
    run: Run,
    folder: Path,
    data_folder: Path,
    device: torch.device,
    *,
    started: float | None = None,
) -> dict[str, Any]:
    """Train a run, write its history and metrics into `folder`, and return the metrics.

    History, a row per epoch: epoch; lr (of the epoch's first step); train_ and validation_ loss,
    top1_error and top5_error (%; training's are means over the epoch's steps); seconds (training
    and evaluation); compute_seconds (the same without waiting for batches); images_per_second
    (training, end to end) and compute_images_per_second.

    A loss that is not finite ends the run; its status is then 'diverged', which is a result.
    Equal runs give equal numbers on one machine with as many threads, apart from the times.
    `started` is the `perf_counter` at which the process began; the metrics' startup_seconds are
    those from then until imports are done and the data are in memory; started and finished are
    seconds since 1970.
    """
    begin = time.perf_counter() if started is None else started
    settle(run.seed, device)
    facts = provenance(device)
    task = Classification(run, device, data_folder)
    ready = time.perf_counter()
    loop = Loop(task, device)
    history: list[dict[str, float]] = []
    (folder / FAILURE).unlink(missing_ok=True)
    with (folder / HISTORY).open("w", newline="") as file:
        for epoch in range(1, run.spec.recipe.epochs + 1):
            row = loop.epoch(epoch)
            if epoch == 1:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            history.append(row)
            print(_line(row, run.spec.recipe.epochs), flush=True)
            if not math.isfinite(row["train_loss"] + row["validation_loss"]):
                break
    diverged = not math.isfinite(row["train_loss"] + row["validation_loss"])
    results = {k: v for k, v in row.items() if k.startswith(("train_", "validation_"))}
    metrics = {
        "status": "diverged" if diverged else "completed",
        "epochs": len(history),
        **{k: v if math.isfinite(v) else None for k, v in results.items()},
        "started": round(time.time() - (time.perf_counter() - begin), 3),
        "finished": round(time.time(), 3),
        "startup_seconds": round(ready - begin, 3),
        "seconds": round(time.perf_counter() - begin, 3),
        "compute_seconds": round(sum(row["compute_seconds"] for row in history), 3),
        "images_per_second": history[-1]["images_per_second"],
        "dataset_fingerprint": task.fingerprint,
        **facts,
    }
    finish(folder, metrics)
    return metrics


class Loop:
    """Optimiser, schedule and precision around a task."""

    def __init__(self, task: Classification, device: torch.device) -> None:
        self.task = task
        self.recipe = task.recipe
        self.device = device
        self.step = 0
        self.optimizer = torch.optim.SGD(
            task.model.parameters(),
            lr=self.recipe.learning_rate,
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.recipe.precision == "fp16")

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, evaluate, and return the history's row."""
        start = time.perf_counter()
        lr = self._learning_rate()
        sums, waited = self._train(epoch)
        trained = time.perf_counter()
        with self._autocast():
            train, validation = sums.tolist(), self.task.evaluate().tolist()
        end = time.perf_counter()
        images = train[-1]
        row: dict[str, float] = {"epoch": epoch, "lr": lr}
        for split, values in (("train", train), ("validation", validation)):
            for column, value in zip(self.task.columns, values[:-1], strict=True):
                scale = 100 if column.endswith("error") else 1
                row[f"{split}_{column}"] = round(scale * value / values[-1], 6)
        return row | {
            "seconds": round(end - start, 4),
            "compute_seconds": round(end - start - waited, 4),
            "images_per_second": round(images / (trained - start), 1),
            "compute_images_per_second": round(images / (trained - start - waited), 1),
        }

    def _train(self, epoch: int) -> tuple[torch.Tensor, float]:
        self.task.model.train()
        sums = torch.zeros(4, device=self.device)
        batches = self.task.batches(epoch)
        waited = 0.0
        for _ in tqdm(
            range(self.task.steps_per_epoch), f"epoch {epoch}", leave=False, disable=None
        ):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            with self._autocast():
                loss, batch_sums = self.task.loss(batch)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            sums += batch_sums
            self.step += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return sums, waited

    def _learning_rate(self) -> float:
        recipe = self.recipe
        return learning_rate(
            recipe.schedule,
            recipe.learning_rate,
            self.step,
            self.task.steps_per_epoch,
            recipe.epochs,
        )

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.recipe.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32)


def settle(seed: int, device: torch.device) -> None:
    """Make what follows repeatable: random state and deterministic algorithms."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    # Filling new memory is an aid to debugging that costs a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)  # denormals slow a CPU tenfold


def _line(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  lr {row['lr']:.2g}  "
        f"loss {row['train_loss']:.4f} train, {row['validation_loss']:.4f} validation  "
        f"top-1 error {row['train_top1_error']:.2f} % train, "
        f"{row['validation_top1_error']:.2f} % validation  "
        f"{row['images_per_second']:.0f} images/s  {row['seconds']:.1f} s"
    )
