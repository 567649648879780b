"""One training: from a run's spec to its history and metrics, resumed where it was interrupted."""

import csv
import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from attention_ablation.base.io import read_bytes, write_bytes, write_text
from attention_ablation.datasets.folders import Folders
from attention_ablation.feed.workers import deaths_as_errors
from attention_ablation.runs.folder import HISTORY, finish, initial_weights, sha256
from attention_ablation.spec.spec import Run
from attention_ablation.training import checkpoint
from attention_ablation.training.loop import Loop, Stopped
from attention_ablation.training.processes import ALONE, Processes
from attention_ablation.training.provenance import peak_memory, provenance
from attention_ablation.training.task import Task, task_class


def train(
    run: Run,
    folder: Path,
    data_folder: Path,
    device: torch.device,
    *,
    processes: Processes = ALONE,
    started: float | None = None,
    datasets: Path | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Train a run, write its history and metrics into `folder`, and return the metrics.

    History, a row per epoch: epoch; lr (of the epoch's first step); train_ and validation_ loss,
    top1_error and top5_error (%; training's are means over the epoch's steps), of a detector
    train_loss with its parts and validation_ map_50, map_75 and map (%); seconds (training and
    evaluation); compute_seconds (the same without waiting for batches); images_per_second
    (training, end to end) and compute_images_per_second.

    A checkpoint is written when an epoch's steps are done, before their evaluation. On SIGINT,
    SIGTERM or SIGUSR1 the process exits with 128 + the signal's number: at the next step, after
    one more checkpoint, or at the evaluation's next batch. A training that finds a checkpoint goes
    on from it, with the numbers of one that was never interrupted. At the end the weights alone
    are kept, in weights.pt.

    Several `processes` call this together, each with its device. A signal to any of them stops
    all at the same step; images_per_second counts the images of all, and seconds, waiting and the
    facts about the machine are the main process's. How many there are changes the numbers,
    because BatchNorm's statistics are of each one's part of the batch.

    A loss that is not finite ends the run; its status is then 'diverged', which is a result.
    Equal runs give equal numbers on one machine with as many threads, apart from the times.
    `started` is the `perf_counter` at which the process began; the metrics' startup_seconds are
    those from then until imports are done and the data are in memory; started and finished are
    seconds since 1970, of the process that finished the run; peak memory is that process's, MB.
    `data_folder` and `datasets` are the two of `Folders`; `workers` decode image files, in each
    process, and change no number.
    """
    begin = time.perf_counter() if started is None else started
    task_of = task_class(run)
    with processes.main_first():  # it composes the data set where that was not done
        data: Any = task_of.load(run, folder, Folders(data_folder, datasets or data_folder))
    ready = time.perf_counter()
    initial = initial_weights(run, folder)
    seed_everything(run.seed, device)
    facts = provenance(device)
    task: Task = task_of(run, data, device, processes, workers)
    module = run.spec.attention.module_file
    if module and processes.is_main:  # it may be in no commit
        write_bytes(folder / Path(module).name, read_bytes(Path(module)))
    loop = Loop(task, device)
    with stop_signal() as received, closing(task), deaths_as_errors():
        _go_on(loop, folder, lambda: processes.largest(received() or 0))
    history = loop.history
    results = {k: v for k, v in history[-1].items() if k.startswith(("train_", "validation_"))}
    metrics = {
        "status": "diverged" if _diverged(history) else "completed",
        "epochs": len(history),
        **{k: v if math.isfinite(v) else None for k, v in results.items()},
        "started": round(time.time() - (time.perf_counter() - begin), 3),
        "finished": round(time.time(), 3),
        "startup_seconds": round(ready - begin, 3),
        "seconds": round(time.perf_counter() - begin, 3),
        "compute_seconds": round(sum(row["compute_seconds"] for row in history), 3),
        "images_per_second": history[-1]["images_per_second"],
        **peak_memory(device),
        "dataset_fingerprint": task.fingerprint,
        "dataset_composed_with": task.composed_with,
        **({"dataset_remarks": task.remarks} if task.remarks else {}),
        **({"initial_sha256": sha256(initial)} if initial else {}),
        "processes": processes.size,
        **facts,
    }
    metrics |= task.conclude(folder)
    if processes.is_main:
        _write_history(folder, history)
        # What `attention-ablation verify` holds the folder to.
        metrics["weights_sha256"] = checkpoint.save_weights(folder, task.model.state_dict())
        metrics["history_sha256"] = sha256(folder / HISTORY)
        finish(folder, metrics)
    return metrics


def _go_on(loop: Loop, folder: Path, signalled: Callable[[], int]) -> None:
    """Train from the last checkpoint to the end, or until a signal.

    `signalled` returns its number, 0 without one; all processes call it together.
    """
    processes, recipe = loop.processes, loop.recipe
    # The main process tells the others, who may see the folder later than it was written.
    if state := processes.broadcast(checkpoint.load(folder) if processes.is_main else None):
        loop.load_state_dict(state)
        if processes.is_main:
            print(f"going on from step {loop.step} of {recipe.steps}", flush=True)

    def save() -> None:
        state = loop.state_dict()  # of all processes
        if processes.is_main:
            checkpoint.save(folder, loop.step, state)

    while len(loop.history) < recipe.epochs and not _diverged(loop.history):
        try:
            row = loop.epoch(lambda: signalled() > 0, save)
        except Stopped:
            if processes.is_main:
                at = f"stopped at step {loop.step}"
                print(f"{at}; the next call goes on from there", flush=True)
            # Here the others wait for the main process to have saved: torchrun kills what is
            # left half a minute after the first one has gone.
            sys.exit(128 + signalled())
        if processes.is_main:
            _write_history(folder, loop.history)
            print(_line(row, recipe.epochs, loop.task.describe(row)), flush=True)


def seed_everything(seed: int, device: torch.device) -> None:
    """Make what follows repeatable: random state and deterministic algorithms."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    # Filling new memory is an aid to debugging that costs a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)  # denormals slow a CPU tenfold


@contextmanager
def stop_signal() -> Iterator[Callable[[], int | None]]:
    """Note SIGINT, SIGTERM and SIGUSR1 instead of dying of them; the value tells which came."""
    received: list[int] = []
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(name, lambda number, _: received.append(number)) for name in names]
    try:
        yield lambda: received[0] if received else None
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


def _diverged(history: list[dict[str, float]]) -> bool:
    losses = [v for row in history[-1:] for k, v in row.items() if k.endswith("_loss")]
    return not all(map(math.isfinite, losses))


def _write_history(folder: Path, history: list[dict[str, float]]) -> None:
    columns = max(history, key=len)  # an epoch may have no evaluation
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / HISTORY, text.getvalue())


def _line(row: dict[str, float], epochs: int, described: str) -> str:
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  lr {row['lr']:.2g}  {described}  "
        f"{row['images_per_second']:.0f} images/s  {row['seconds']:.1f} s"
    )
