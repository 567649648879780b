"""Several processes that train one run together, one for each GPU, as torchrun starts them.

With one process nothing here imports torch.distributed, or waits for anyone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from attention_ablation.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class Processes:
    """The processes of one training; this one is number `rank` of `size`, 0 being the main one.

    The main one alone prints and writes the run's files. All call the same methods in the same
    order, because each of them waits for the others.

    Gradients are averaged over the processes, so that a step is that of the whole batch.
    BatchNorm's statistics are each process's own, of its part of the batch, as in the paper's
    DataParallel; the running ones that count are the main one's, as DataParallel keeps those of
    its first device.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.is_main = rank == 0

    def print(self, text: str) -> None:
        """Print a line at once, by the main process."""
        if self.is_main:
            print(text, flush=True)

    def check_shared(self, batch_size: int, least: int) -> None:
        """Raise UserError where they cannot all take as many images, or take fewer than `least`."""
        if batch_size % self.size:
            raise UserError(
                f"recipe.batch_size: expected a multiple of the {self.size} processes, got "
                f"{batch_size}; start a number of processes that divides it."
            )
        if batch_size < least * self.size:
            raise UserError(
                f"recipe.batch_size: expected at least {least} images for each of the {self.size} "
                f"processes, over which BatchNorm normalises, got {batch_size}; start fewer."
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` so that its backward pass averages the gradients over the processes.

        All start from the main process's weights. State is kept in `model` itself, whose names
        have no prefix.
        """
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        # torch 2.15 renamed it and warns of the old name.
        names = signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        options: dict[str, Any] = {name: False}
        return DistributedDataParallel(model, **options)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' tensors, on their device."""
        if self.size == 1:
            return tensor
        from torch import distributed

        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of the processes' tensors, on their device."""
        return self.sum(tensor) / self.size

    def gather(self, values: list[T]) -> list[T]:
        """Return the values of all processes, those of the main one first."""
        if self.size == 1:
            return values
        from torch import distributed

        gathered: list[list[T]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(gathered, values)
        return [value for part in gathered for value in part]

    def largest(self, number: int) -> int:
        """Return the largest of the processes' numbers; it goes over the CPU, past GPUs' queues."""
        if self.size == 1:
            return number
        from torch import distributed, tensor

        numbers = tensor(number)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)

    def broadcast(self, value: T) -> T:
        """Return the main process's value, whatever the others gave; tensors lie on the CPU."""
        if self.size == 1:
            return value
        from torch import device, distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, device=device("cpu"))
        return values[0]

    def in_step(self, batches: Iterable[T], count: int, stop: Callable[[], None]) -> Iterator[T]:
        """Yield this process's `count` batches, calling `stop` before each, all together.

        One that has fewer batches calls it as often, because they agree in it whether to stop.
        """
        mine = iter(batches)
        for _ in range(self.largest(count)):
            batch = next(mine, None)
            stop()
            if batch is not None:
                yield batch

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the main process's buffers, BatchNorm's running statistics, to the others."""
        if self.size > 1:
            from torch import distributed

            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process through a block, then the others."""
        if not self.is_main:
            self.broadcast(None)
        yield
        if self.is_main:
            self.broadcast(None)

    @contextmanager
    def behind(
        self, lock: Callable[[Callable[[], object]], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Run a block while the main process has a lock.

        `lock` gets what it is to call again and again while it waits, or the others would give up.
        """
        if not self.is_main:
            while self.broadcast(False) is False:
                pass
            yield
            return
        with lock(lambda: self.broadcast(False)):
            self.broadcast(True)
            yield


ALONE = Processes()


def local_rank() -> int | None:
    """Return this process's number on its node, None where torchrun did not start it.

    Raises UserError where what torchrun sets makes no sense.
    """
    names = ("LOCAL_RANK", "RANK", "WORLD_SIZE")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if len(given) < len(names):
        return None
    numbers = [int(n) if re.fullmatch("[0-9]{1,9}", n) else -1 for n in given.values()]
    if not 0 <= numbers[0] <= numbers[1] < numbers[2]:
        found = ", ".join(f"{name}={text}" for name, text in given.items())
        raise UserError(
            "expected LOCAL_RANK <= RANK < WORLD_SIZE in the environment, as torchrun sets them, "
            f"got {found}; start it with torchrun, or unset them."
        )
    return numbers[0]
