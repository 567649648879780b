"""Batches for classification, on the device; of a data set in memory, and what others share.

What an image looks like in a step depends on the seed, the epoch and its place only.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from attention_ablation.datasets.reading.data import ImageData, ImageSet
from attention_ablation.feed.augment import PadCropFlip, draws
from attention_ablation.feed.order import Part
from attention_ablation.spec.recipes import ClassificationRecipe

if TYPE_CHECKING:
    from attention_ablation.feed.image_files import FileSource

EVALUATION_BATCH = 250
Batch = tuple[Tensor, Tensor]


class Source(ABC):
    """A data set's batches: images (n, 3, H, W), normalised, and labels (n,) int64."""

    def __init__(
        self, data: ImageData, part: Part[ClassificationRecipe], device: torch.device
    ) -> None:
        self.train_images = len(data.train)
        self.evaluated = part.evaluated(len(data.validation), EVALUATION_BATCH)
        self.part = part
        self.device = device
        self.mean, self.std = (
            value.to(device) if isinstance(value, Tensor) else value
            for value in (data.mean, data.std)
        )

    @abstractmethod
    def training(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield this process's parts of the epoch's full batches, from the `first`, from 0."""

    @abstractmethod
    def validation(self) -> Iterator[Batch]:
        """Yield this process's part of the validation set, every image once."""

    @abstractmethod
    def pixels(self, indices: list[int]) -> Tensor:
        """Return validation images as they are evaluated, (n, C, H, W) uint8."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, where there are any; they start again when they are needed."""

    def normalised(self, images: Tensor) -> Tensor:
        """Return bytes, (N, C, H, W), as the network sees them: (N, 3, H, W)."""
        mean, std = self.mean, self.std
        if isinstance(mean, Tensor) and isinstance(std, Tensor):
            # Line by line, each with a mean for every number in it: with three numbers at a time,
            # as channels lie in memory, it takes twice as long.
            n, _, height, width = images.shape
            colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # also of grey images
            lines = colour.reshape(n, height, width * 3).float()
            lines.sub_((255 * mean).expand(3, 1, 1).flatten().repeat(width))
            lines.div_((255 * std).expand(3, 1, 1).flatten().repeat(width))
            return lines.view(n, height, width, 3).permute(0, 3, 1, 2)
        colour = images.float().div_(255).sub_(mean).div_(std).expand(-1, 3, -1, -1)
        return colour.contiguous(memory_format=torch.channels_last)


class MemorySource(Source):
    """Batches of a data set in memory, on the device, so that none of them waits for Python."""

    def __init__(
        self, data: ImageData, part: Part[ClassificationRecipe], device: torch.device
    ) -> None:
        super().__init__(data, part, device)
        self.train_set, self.validation_set = (
            cast(ImageSet, split).to(device) for split in (data.train, data.validation)
        )
        augmented = part.recipe.augmentation == "pad-crop-flip"
        self._augment = PadCropFlip(self.train_set.images) if augmented else None

    def training(self, epoch: int, first: int) -> Iterator[Batch]:
        part, count = self.part, self.train_images
        order = part.order(count, epoch).to(self.device)
        steps = [part.at(count, step)[1] for step in part.steps(count, epoch, first)]
        if self._augment is None:
            for mine in steps:
                yield self.batch(self.train_set, order[mine])
        else:
            drawn = draws(part.seed, epoch, count).to(self.device)
            for mine in steps:
                images = self._augment(order[mine], drawn[mine])
                yield self.normalised(images), self.train_set.labels[order[mine]]

    def validation(self) -> Iterator[Batch]:
        for indices in self.evaluated:
            yield self.batch(self.validation_set, indices.to(self.device))

    def batch(self, images: ImageSet, indices: Tensor) -> Batch:
        """Return some images as a network sees them, and their labels."""
        return self.normalised(images.images[indices]), images.labels[indices]

    def pixels(self, indices: list[int]) -> Tensor:
        return self.validation_set.images[indices].cpu()

    def close(self) -> None:
        """There are no workers."""


def source(
    data: ImageData, part: Part[ClassificationRecipe], device: torch.device, workers: int = 0
) -> "MemorySource | FileSource":
    """Return the source of a data set's batches. `workers` are of image files only."""
    if isinstance(data.train, ImageSet):
        return MemorySource(data, part, device)
    from attention_ablation.feed.image_files import FileSource  # it needs what is above

    return FileSource(data, part, device, workers)
