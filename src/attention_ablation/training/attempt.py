"""One attempt at a run: its folder locked, a GPU reserved, the reason noted where it fails.

torch is imported only after that, so that an attempt that waits for a GPU costs nothing.
"""

import gc
from contextlib import suppress
from functools import partial
from pathlib import Path

from attention_ablation.base.errors import UserError, brief
from attention_ablation.base.io import write_json
from attention_ablation.datasets.contract import Folders
from attention_ablation.runs.folder import FAILURE, begin, read_run, restore
from attention_ablation.runs.lock import lock_run
from attention_ablation.training.machine import Machine
from attention_ablation.training.processes import local_rank


def attempt(spec: Path, folders: Folders, machine: Machine, number: int = 1) -> None:
    """Train a run, resume it, or find it finished; under torchrun together with the others.

    spec: the run's `spec.json`, in its folder. number: 1, or more where the workflow tries again
    what it believes to be a lost machine; UserError is raised then if it failed by itself before.
    """
    folder = spec.parent
    begin(spec, number)
    try:
        with machine.joined() as joined, joined.processes.behind(partial(lock_run, folder)):
            processes = joined.processes
            # Another process may have finished it while this one waited, or Snakemake was killed
            # before it noted that the run had ended.
            if processes.broadcast(processes.is_main and restore(folder)):
                processes.print(
                    f"{folder}: finished already; to train it again, delete the folder."
                )
                return
            # After the folder: one that waits for a run to be finished elsewhere needs no GPU.
            with joined.slot():
                run = read_run(spec)
                # Importing makes millions of objects that stay; the collector would go through
                # them again and again.
                gc.disable()
                from attention_ablation.training.run import train

                gc.enable()
                train(run, folder, folders, joined)
    except Exception as error:
        # The first process to fail knows why.
        if not _misses_another(error) and not (folder / FAILURE).exists():
            reason = str(error) if isinstance(error, UserError) else brief(error)
            failure = {"status": "failed", "reason": reason.strip().splitlines()[0][:300]}
            with suppress(UserError):  # a full disk, which is what `error` says, too
                write_json(folder / FAILURE, failure)
        raise


def _misses_another(error: Exception) -> bool:
    """Whether this process failed because another one of torchrun's is gone.

    That one notes its own reason; where it noted none, it was killed or its machine is lost, and
    the run may be tried again.
    """
    if local_rank() is None or isinstance(error, UserError):
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)
