"""One training: from a run's spec to its history and metrics, resumed where it was interrupted."""

import hashlib
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

import attention_ablation
from attention_ablation.base.io import read_bytes, write_bytes, write_text
from attention_ablation.base.signals import stop_signal
from attention_ablation.datasets.contract import Folders
from attention_ablation.datasets.contract import load as load_data
from attention_ablation.feed.workers import deaths_as_errors
from attention_ablation.runs.folder import HISTORY, finish, initial_weights, sha256
from attention_ablation.spec.spec import Run
from attention_ablation.training import checkpoint
from attention_ablation.training.energy import Energy
from attention_ablation.training.history import as_csv, diverged, results
from attention_ablation.training.loop import Loop, Stopped
from attention_ablation.training.machine import Machine
from attention_ablation.training.provenance import peak_memory, provenance
from attention_ablation.training.task import Task


def train(run: Run, folder: Path, folders: Folders, machine: Machine) -> dict[str, Any]:
    """Train a run, write its history and metrics into `folder`, and return the metrics.

    A checkpoint is written when an epoch's steps are done, before their evaluation. On SIGINT,
    SIGTERM, SIGUSR1 or SIGUSR2 the process exits with 128 + the signal's number: at the next step,
    after one more checkpoint, or at the evaluation's next batch. A training that finds a checkpoint
    goes on from it, with the numbers of one that was never interrupted. At the end the weights
    alone are kept, in weights.pt.

    Several processes call this together; a signal to any of them stops all at the same step. How
    many there are changes the numbers: BatchNorm's statistics are of each one's part of the batch.

    A loss that is not finite ends the run; its status is then 'diverged', which is a result.
    Equal runs give equal numbers on one machine with as many threads, apart from the times.
    results/README.md says what the history and the metrics hold, and of which process.
    """
    processes, device = machine.processes, machine.device  # refused before any data are read
    task_of = task_class(run)
    with processes.main_first():  # it composes the data set where that was not done
        data = load_data(run.spec.recipe.dataset, folders)
    if remarks := getattr(data, "skipped", ""):  # what classification would skip is refused
        print(f"warning: {remarks}", flush=True)
    ready = time.perf_counter()
    seed_everything(run.seed, device)
    facts = provenance(device)
    task = task_of(run, data, machine)
    if initial := initial_weights(run, folder):
        task.start_from(initial)
        facts = {"initial_sha256": sha256(initial)} | facts
    module = None if run.spec.task == "front-end" else run.spec.attention.module_file
    if module and processes.is_main:  # it may be in no commit
        write_bytes(folder / Path(module).name, read_bytes(Path(module)))
    loop, energy = Loop(task), Energy(machine)
    with stop_signal() as received, closing(task), deaths_as_errors():
        _go_on(loop, energy, folder, lambda: processes.largest(received() or 0))
    joules = energy.joules()
    seconds = time.perf_counter() - attention_ablation.STARTED
    metrics = {
        **results(loop.history),
        "started": round(time.time() - seconds, 3),
        "finished": round(time.time(), 3),
        "startup_seconds": round(ready - attention_ablation.STARTED, 3),
        "seconds": round(seconds, 3),
        "compute_seconds": round(sum(row["compute_seconds"] for row in loop.history), 3),
        "images_per_second": loop.history[-1]["images_per_second"],
        **peak_memory(device),
        **({"joules": round(joules, 1)} if math.isfinite(joules) else {}),
        "dataset_fingerprint": data.fingerprint,
        "dataset_composed_with": data.composed_with,
        **({"dataset_remarks": remarks} if remarks else {}),
        **({"compiled": task.compiled.works} if task.compiled else {}),
        "processes": processes.size,
        **facts,
    }
    shown = task.conclude(folder)
    if processes.is_main:
        history = as_csv(loop.history)
        # `attention-ablation verify` checks the folder against them.
        metrics["weights_sha256"] = checkpoint.save_weights(folder, task.model.state_dict())
        metrics["history_sha256"] = hashlib.sha256(history.encode()).hexdigest()
        metrics |= shown
        finish(folder, metrics, history)
    return metrics


def task_class(run: Run) -> Callable[[Run, Any, Machine], Task]:
    """Return the class of a run's task, with what it needs imported."""
    if run.spec.task == "detection":
        from attention_ablation.training.detect import Detection

        return Detection
    if run.spec.task == "front-end":
        from attention_ablation.training.front_end import FrontEnd

        return FrontEnd
    from attention_ablation.training.classify import Classification

    return Classification


def _go_on(loop: Loop, energy: Energy, folder: Path, signalled: Callable[[], int]) -> None:
    """Train from the last checkpoint to the end, or until a signal.

    `signalled` returns its number, 0 without one; all processes call it together.
    """
    processes, epochs = loop.processes, loop.recipe.epochs
    # The main process's, because the others may see the folder later than it was written.
    if state := processes.broadcast(checkpoint.load(folder) if processes.is_main else None):
        loop.load_state_dict(state)
        energy.earlier = state.get("joules", math.nan)  # none where an older version wrote it
        processes.print(f"going on from step {loop.step} of {loop.recipe.steps}")

    def save() -> None:
        state = loop.state_dict() | {"joules": energy.joules()}  # of all processes
        if processes.is_main:
            checkpoint.save(folder, loop.step, state)

    while len(loop.history) < epochs and not diverged(loop.history):
        try:
            row = loop.epoch(lambda: signalled() > 0, save)
        except Stopped:
            processes.print(f"stopped at step {loop.step}; the next call goes on from there")
            # Here the others wait for the main process to have saved: torchrun kills what is
            # left half a minute after the first one has gone.
            sys.exit(128 + signalled())
        if processes.is_main:
            write_text(folder / HISTORY, as_csv(loop.history))
        processes.print(
            f"epoch {row['epoch']:.0f}/{epochs}  lr {row['lr']:.2g}  {loop.task.describe(row)}  "
            f"{row['images_per_second']:.0f} images/s  {row['seconds']:.1f} s"
        )


def seed_everything(seed: int, device: torch.device) -> None:
    """Make what follows repeatable: random state and deterministic algorithms."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(True)
    else:  # the same, without importing torch._inductor, which takes a second and reads this then
        torch.set_deterministic_debug_mode("error")
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
    # Filling new memory is an aid to debugging that costs a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)  # denormals slow a CPU tenfold
