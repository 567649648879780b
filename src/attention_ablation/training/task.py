"""What the loop asks of a task: a network, its data, what a step is and what an evaluation says."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attention_ablation.feed.order import Part
from attention_ablation.spec.recipes import ClassificationRecipe, DetectionRecipe
from attention_ablation.spec.spec import Run
from attention_ablation.training.compiled import Compiled
from attention_ablation.training.dreal import Dreal
from attention_ablation.training.machine import Machine
from attention_ablation.training.precision import set_tf32


class Task(ABC):
    """A run's network and data on a machine; of several processes each has its part of a batch.

    `columns` are the parts of a step's sums before the last one, which is images; those that end in
    'error' are counts. Sums are kept on the device: reading them waits for it.

    Raises UserError where the batch cannot be divided by the processes.
    """

    columns: tuple[str, ...]
    recipe: ClassificationRecipe | DetectionRecipe
    model: nn.Module
    compiled: Compiled | None = None
    method: Dreal | None = None

    def __init__(self, run: Run, machine: Machine) -> None:
        self.recipe = recipe = run.spec.recipe
        set_tf32(recipe)
        self.device = machine.device
        self.processes = processes = machine.processes
        processes.check_shared(recipe.batch_size, run.spec.least_batch)
        self.part: Part[Any] = Part(recipe, run.seed, processes.rank, processes.size)

    def place(self, model: nn.Module) -> None:
        """Take a network with its initial weights as the one to train."""
        # Tensors stay (N, C, H, W) and lie in memory as N, H, W, C, which convolutions prefer.
        model.to(self.device).to(memory_format=torch.channels_last)
        self.model = model
        if which := self.recipe.compile:
            own_sizes = (
                isinstance(self.recipe, DetectionRecipe) and self.recipe.dataset.longest_side
            )
            self.compiled = Compiled(model, which, sizes_vary=bool(own_sizes))
        self._trained = self.processes.wrap(model)

    def start_from(self, weights: Path) -> None:
        """Give the backbone or front-end the weights of the run's `initial`, of a file."""
        raise NotImplementedError

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; a last batch that is not full is left out."""

    @abstractmethod
    def batches(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Yield this process's parts of the epoch's batches (from 1), from the `first` (from 0)."""

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise and the batch's sums over images."""

    @abstractmethod
    def validate(self, stop: Callable[[], None]) -> dict[str, float]:
        """Return the numbers of the whole validation set, of all processes, by name.

        All processes call `stop` together before each batch; it raises where they shall stop.
        """

    @abstractmethod
    def describe(self, row: Mapping[str, Any]) -> str:
        """Return what a row of the history says, for the log."""

    def conclude(self, folder: Path) -> dict[str, str]:
        """Write what the trained network shows beside its numbers; return the files' digests."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End the worker processes, if there are any."""


def means(columns: Sequence[str], sums: Sequence[float], images: float) -> dict[str, float]:
    """Return sums over images as means: losses, and errors in percent."""
    scales = (100 if column.endswith("error") else 1 for column in columns)
    return {
        column: round(scale * value / images, 6)
        for column, scale, value in zip(columns, scales, sums, strict=True)
    }
