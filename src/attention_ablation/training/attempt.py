"""One attempt at a run: its folder locked, a GPU reserved, the reason noted where it fails.

torch is imported only after that, so that an attempt that waits for a GPU costs nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attention_ablation import STARTED
from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_json
from attention_ablation.datasets.contract import Folders
from attention_ablation.runs.folder import FAILURE, begin, read_run, restore
from attention_ablation.runs.lock import lock_run
from attention_ablation.training.machine import Machine
from attention_ablation.training.processes import Processes, local_rank


def attempt(spec: Path, folders: Folders, machine: Machine, number: int = 1) -> None:
    """Train a run, resume it, or find it finished; under torchrun together with the others.

    Args:
        spec: the run's `spec.json`, in its folder.
        number: 1, or more where the workflow tries again what it believes to be a lost machine.

    Raises UserError for a mistake, and where an attempt before this one failed by itself.
    """
    folder = spec.parent
    begin(spec, number)
    try:
        with machine.joined() as joined, _reserved(folder, joined.processes) as finished:
            if not finished:
                # After the folder: one that waits for a run to be finished elsewhere needs no GPU.
                with joined.slot():
                    _train(spec, folders, joined)
    except Exception as error:
        # The first process to fail knows why.
        failure = folder / FAILURE
        if not _misses_another(error) and not failure.exists():
            with suppress(UserError):  # a full disk, which is what `error` says, too
                write_json(failure, {"status": "failed", "reason": _reason(error)})
        raise


@contextmanager
def _reserved(folder: Path, processes: Processes) -> Iterator[bool]:
    """Lock the run's folder, by the main process, and yield whether the run is finished."""
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


def _train(spec: Path, folders: Folders, machine: Machine) -> None:
    run = read_run(spec)
    # Importing makes millions of objects that stay; the collector would go through them again and
    # again.
    gc.disable()
    from attention_ablation.training.run import train

    gc.enable()
    train(run, spec.parent, folders, machine, STARTED)


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
