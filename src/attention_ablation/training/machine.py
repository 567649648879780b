"""What computes a training: all that the command chooses and no spec holds, in one record.

Nothing here imports torch before the device is asked for: a slot on a GPU must be taken before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from attention_ablation.base.errors import UserError
from attention_ablation.training.processes import ALONE, Processes, local_rank
from attention_ablation.training.slots import VISIBLE, gpu_slot, granted

if TYPE_CHECKING:
    import torch


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
    def device(self) -> torch.device:
        """This process's device; when it is first asked for, torch gets its threads, too."""
        import torch

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


def choose_device(name: str) -> torch.device:
    """Return the device of this process; under torchrun it takes the GPU of its number on the node.

    name: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1' ... Raises UserError for
    another one and for a GPU that torch does not find; with 'auto' where one was granted, because a
    training of days would take months on the CPU; and where processes do not have a GPU each.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and (gpus := granted()):
            source = f"{VISIBLE} is" if VISIBLE in os.environ else "nvidia-smi lists"
            raise UserError(
                f"expected a GPU, because {source} {', '.join(gpus)}, but torch "
                f"{torch.__version__} finds none; check the driver and that this torch is built "
                f"for it, or pass --device cpu, or set {VISIBLE} to nothing for all trainings."
            )
    if not re.fullmatch("cpu|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"--device: expected auto, cpu, cuda, cuda:0, cuda:1 ..., got '{name}'.")
    device, number = torch.device(name), local_rank()
    if device.type != "cuda":
        return device
    found = torch.cuda.device_count()
    if not found or (number is None and (device.index or 0) >= found):
        raise UserError(
            f"--device: expected one of the GPUs that torch {torch.__version__} finds, of which "
            f"there are {found}, got {name}; name another device, such as cpu."
        )
    if number is None:
        return device
    if device.index is not None:
        raise UserError(
            f"--device: expected auto, cpu or cuda under torchrun, where each process takes the "
            f"GPU of its number, got {name}; choose GPUs with {VISIBLE}."
        )
    if number >= found:
        raise UserError(
            f"--nproc-per-node: expected at most {found}, the GPUs that torch finds here, got "
            f"{number + 1} or more; start a process for each GPU."
        )
    return torch.device("cuda", number)
