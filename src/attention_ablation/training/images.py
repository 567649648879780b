"""What trainings on the images of a classification data set share: batches, and their sums."""

from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attention_ablation.datasets.reading.data import ImageData
from attention_ablation.feed.batches import Batch, source
from attention_ablation.spec.recipes import ClassificationRecipe
from attention_ablation.spec.spec import Run
from attention_ablation.training.machine import Machine
from attention_ablation.training.task import Task, means


class ImageTask(Task):
    """A network and images with their classes."""

    recipe: ClassificationRecipe

    def __init__(self, run: Run, data: ImageData, machine: Machine) -> None:
        super().__init__(run, machine)
        self.source = source(data, self.part, machine.device, machine.workers)

    @property
    def steps_per_epoch(self) -> int:
        return self.source.train_images // self.recipe.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        return self.source.training(epoch, first)

    @abstractmethod
    def evaluated(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sums over a batch of validation images."""

    @torch.inference_mode()
    def evaluate(self, stop: Callable[[], None] = lambda: None) -> Tensor:
        """Return the sums over this process's part of the validation set; see `validate`."""
        self.model.eval()
        sums = torch.zeros(len(self.columns) + 1, device=self.device)
        source = self.source
        batches = self.processes.in_step(source.validation(), len(source.evaluated), stop)
        for images, labels in batches:
            sums += self.evaluated(images, labels)
        return sums

    def validate(self, stop: Callable[[], None]) -> dict[str, float]:
        """Return the columns' means, errors in %; see `Task`."""
        *values, images = self.processes.sum(self.evaluate(stop)).tolist()
        return means(self.columns, values, images)

    def close(self) -> None:
        self.source.close()
