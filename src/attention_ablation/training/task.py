"""What the loop asks of a task: a network, its data, what a step is and what an evaluation says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attention_ablation.datasets.contract import Folders
from attention_ablation.spec.recipes import ClassificationRecipe, DetectionRecipe
from attention_ablation.spec.spec import Run
from attention_ablation.training.machine import Machine
from attention_ablation.training.processes import Processes


class Task(Protocol):
    """A run's network and data on a machine; of several processes each has its part of a batch.

    `columns` are the parts of a step's sums before the last one, which is images; those that end in
    'error' are counts. Sums are kept on the device: reading them waits for it.

    Raises UserError where the batch cannot be divided by the processes.
    """

    device: torch.device
    processes: Processes
    model: nn.Module
    fingerprint: str  # of the data set
    composed_with: str | None
    remarks: str  # on what of the data was left out, changed or missing; empty if nothing

    def __init__(self, run: Run, data: Any, machine: Machine) -> None: ...

    @staticmethod
    def load(run: Run, folder: Path, folders: Folders) -> Any:
        """Return the data of a run in `folder`, composed first where that was not done."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def recipe(self) -> ClassificationRecipe | DetectionRecipe: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Yield this process's parts of the epoch's batches (from 1), from the `first` (from 0)."""

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise and the batch's sums over images."""

    def validate(self, stop: Callable[[], None]) -> Mapping[str, float]:
        """Return the numbers of the whole validation set, of all processes, by name.

        All processes call `stop` together before each batch; it raises where they shall stop.
        """

    def describe(self, row: Mapping[str, Any]) -> str:
        """Return what a row of the history says, for the log."""

    def conclude(self, folder: Path) -> dict[str, str]:
        """Write what the trained network shows beside its numbers; return the files' digests."""

    def close(self) -> None:
        """End the worker processes, if there are any."""


def means(columns: Sequence[str], sums: Sequence[float], images: float) -> dict[str, float]:
    """Return sums over images as means: losses, and errors in percent."""
    scales = (100 if column.endswith("error") else 1 for column in columns)
    return {
        column: round(scale * value / images, 6)
        for column, scale, value in zip(columns, scales, sums, strict=True)
    }
