"""One attempt at a run: its folder held, a GPU taken, the reason noted where it fails.

torch is imported only when all that is settled, so that one that waits for a GPU costs nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from attention_ablation import STARTED
from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_json
from attention_ablation.runs.folder import (
    FAILURE,
    read_outcome,
    read_run,
    refuse_folders,
    restore,
)
from attention_ablation.runs.lock import lock_run
from attention_ablation.training.processes import Processes, join, local_rank
from attention_ablation.training.slots import gpu_slot


def attempt(
    spec: Path,
    data_folder: Path,
    *,
    device_name: str = "auto",
    threads: int = 1,
    runs_per_gpu: int = 1,
    number: int = 1,
    datasets: Path | None = None,
    workers: int = 0,
) -> None:
    """Train a run, resume it, or find it finished; under torchrun together with the others.

    Args:
        spec: the run's `spec.json`, in its folder.
        data_folder: where composed data sets and lists of files are.
        device_name: see `choose_device`.
        threads: CPU threads of each process.
        runs_per_gpu: see `gpu_slot`; not under torchrun, whose processes have their GPUs already.
        number: 1, or more where the workflow tries again what it believes to be a lost machine.
        datasets: where the other data sets are, each by its name; None: in `data_folder`.
        workers: processes that decode image files, for each process of the training.

    Raises UserError for a mistake, and where an attempt before this one failed by itself.
    """
    folder = spec.parent
    if not spec.exists():
        raise UserError(f"{spec}: there is no such spec; plan the run with snakemake.")
    failure = folder / FAILURE
    refuse_folders(folder)
    if number > 1 and (outcome := read_outcome(folder)).status == "failed":
        raise UserError(
            f"{folder}: it failed in the attempt before: {outcome.reason} "
            "Mend that and start the workflow again; what fails by itself is not tried again."
        )
    failure.unlink(missing_ok=True)
    try:
        with join(device_name) as processes, _reserved(folder, processes) as finished:
            if not finished:
                # After the folder: one that waits for a run to be finished elsewhere needs no GPU.
                alone = device_name == "auto" and local_rank() is None
                with gpu_slot(runs_per_gpu) if alone else nullcontext():
                    _train(spec, data_folder, device_name, threads, processes, datasets, workers)
    except Exception as error:
        # The first process to fail knows why.
        if not _misses_another(error) and not failure.exists():
            with suppress(UserError):  # a full disk, which is what `error` says, too
                write_json(failure, {"status": "failed", "reason": _reason(error)})
        raise


@contextmanager
def _reserved(folder: Path, processes: Processes) -> Iterator[bool]:
    """Hold the run's folder, by the main process, and yield whether the run is finished."""
    if not processes.is_main:
        while (finished := processes.broadcast(None)) is None:
            pass  # the main one waits, and says so again and again, or this one would give up
        yield finished
        return
    with lock_run(folder, meanwhile=lambda: processes.broadcast(None)):
        # Another process may have finished it while this one waited, or Snakemake was killed
        # before it noted that the run had ended.
        finished = restore(folder)
        if finished:
            print(f"{folder}: finished already; to train it again, delete the folder.")
        yield processes.broadcast(finished)


def _train(
    spec: Path,
    data_folder: Path,
    device_name: str,
    threads: int,
    processes: Processes,
    datasets: Path | None,
    workers: int,
) -> None:
    run = read_run(spec)
    # Importing makes millions of objects that stay; the collector would look at them many times.
    gc.disable()
    import torch

    from attention_ablation.training.device import choose_device
    from attention_ablation.training.run import train

    gc.enable()
    torch.set_num_threads(threads)
    device = choose_device(device_name)
    train(
        run,
        spec.parent,
        data_folder,
        device,
        processes=processes,
        started=STARTED,
        datasets=datasets,
        workers=workers,
    )


def _misses_another(error: Exception) -> bool:
    """Whether this process failed because another one of torchrun's is gone.

    That one notes its own reason; where it noted none, it was killed or its machine is lost, and
    the run may be tried again.
    """
    if local_rank() is None or isinstance(error, UserError):
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return text.strip().splitlines()[0][:300]
