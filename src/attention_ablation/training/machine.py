"""What computes a training: all that the command chooses and no spec holds, in one record.

Nothing here imports torch before the device is asked for: a slot on a GPU must be taken before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from attention_ablation.base.errors import UserError
from attention_ablation.training.processes import ALONE, Processes, local_rank
from attention_ablation.training.slots import gpu_slot

if TYPE_CHECKING:
    from torch import device


@dataclass(frozen=True)
class Machine:
    """The device and its share of the machine.

    device_name: see `choose_device`. threads: of the CPU, for each process. workers: processes
    that decode image files, for each process. runs_per_gpu: see `gpu_slot`. processes: those that
    train together.
    """

    device_name: str = "auto"
    threads: int = 1
    workers: int = 0
    runs_per_gpu: int = 1
    processes: Processes = ALONE

    @cached_property
    def device(self) -> device:
        """This process's device; when it is first asked for, torch gets its threads, too."""
        import torch

        from attention_ablation.training.device import choose_device

        torch.set_num_threads(self.threads)
        return choose_device(self.device_name)

    def slot(self) -> AbstractContextManager[str | None]:
        """Take a slot on a GPU, unless a device was named or torchrun's processes have theirs."""
        alone = self.device_name == "auto" and local_rank() is None
        return gpu_slot(self.runs_per_gpu) if alone else nullcontext()

    @contextmanager
    def joined(self) -> Iterator[Machine]:
        """Meet the other processes that torchrun started, if it did; yield the machine with them.

        Raises UserError where what torchrun sets makes no sense.
        """
        if local_rank() is None or os.environ["WORLD_SIZE"] == "1":
            yield self
            return
        import torch
        from torch import distributed

        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.set_device(self.device)
        try:
            # Gradients and sums travel between GPUs; what CPUs agree on never waits for a GPU.
            distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        except ValueError as error:  # of torchrun's variables
            raise UserError(f"expected the environment that torchrun sets: {error}") from None
        try:
            yield replace(
                self, processes=Processes(distributed.get_rank(), distributed.get_world_size())
            )
        except SystemExit:  # they agreed to stop
            distributed.destroy_process_group()
            raise
        # After an error the others may be gone, and taking leave of them could wait for ever.
        distributed.destroy_process_group()
