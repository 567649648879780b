"""Batches for classification, on the device: from memory where it is small, else from files.

What an image looks like in a step depends on the seed, the epoch and its place only.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from attention_ablation.datasets.reading.data import FileList, ImageData, ImageSet
from attention_ablation.feed.augment import PadCropFlip, draws, evaluation_crop, training_crop
from attention_ablation.feed.order import Key, Part
from attention_ablation.feed.workers import Reader
from attention_ablation.spec.recipes import ClassificationRecipe

EVALUATION_BATCH = 250
Batch = tuple[Tensor, Tensor]


class _Source:
    """What both sources have. A batch is images (n, 3, H, W), normalised, and labels (n,) int64.

    training: this process's parts of the epoch's full batches, from the `first`, from 0.
    validation: its part of the validation set, every image once. pixels: validation images as they
    are evaluated, (n, C, H, W) uint8. close: ends the workers, which start again when needed.
    """

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

    def _input(self, images: Tensor) -> Tensor:
        # (N, C, H, W) uint8 -> (N, 3, H, W), normalised.
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


class MemorySource(_Source):
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
                yield self._input(images), self.train_set.labels[order[mine]]

    def validation(self) -> Iterator[Batch]:
        for indices in self.evaluated:
            yield self.batch(self.validation_set, indices.to(self.device))

    def batch(self, images: ImageSet, indices: Tensor) -> Batch:
        """Return some images as a network sees them, and their labels."""
        return self._input(images.images[indices]), images.labels[indices]

    def pixels(self, indices: list[int]) -> Tensor:
        return self.validation_set.images[indices].cpu()

    def close(self) -> None:
        """There are no workers."""


class FileSource(_Source):
    """Batches of image files, read, decoded and cropped by worker processes.

    Raises UserError, naming it, for a file that does not decode.
    """

    def __init__(
        self,
        data: ImageData,
        part: Part[ClassificationRecipe],
        device: torch.device,
        workers: int = 0,
    ) -> None:
        import torchvision.transforms.v2  # noqa: F401  (once, before the workers are forked)

        super().__init__(data, part, device)
        self._data = data
        pinned = device.type == "cuda"
        self._reader = Reader(self._item, self._path, _stacked, workers, pin_memory=pinned)

    def training(self, epoch: int, first: int) -> Iterator[Batch]:
        steps = self.part.steps(self.train_images, epoch, first)
        return self._batches(self.part.keys(self.train_images, steps))

    def validation(self) -> Iterator[Batch]:
        return self._batches([(None, i) for i in indices.tolist()] for indices in self.evaluated)

    def pixels(self, indices: list[int]) -> Tensor:
        return torch.stack([self._evaluated(self._files(None)[index][0]) for index in indices])

    def _batches(self, keys: Iterable[list[Key]]) -> Iterator[Batch]:
        return map(self.on_device, self._reader.batches(keys))

    def on_device(self, batch: Batch) -> Batch:
        """Return what a worker made, (n, H, W, 3) bytes, as the network sees it."""
        images, labels = (part.to(self.device, non_blocking=True) for part in batch)
        # Loaded as (n, H, W, 3): the channels last is how they lie in a file's image.
        return self._input(images.permute(0, 3, 1, 2)), labels

    def _item(self, key: Key) -> tuple[Tensor, int]:
        number, index = key
        image, label = self._files(number)[index]
        if number is not None and self.part.recipe.augmentation == "crop-flip":
            size = self.part.recipe.dataset.image_size
            cropped = training_crop(image, size, self.part.seed, number, index)
        else:
            cropped = self._evaluated(image)
        return cropped.permute(1, 2, 0).contiguous(), label

    def _evaluated(self, image: Tensor) -> Tensor:
        dataset = self.part.recipe.dataset
        return evaluation_crop(image, dataset.image_size, dataset.resize)

    def _path(self, key: Key) -> object:
        return self._files(key[0]).path(key[1])

    def _files(self, number: int | None) -> FileList:
        return cast(FileList, self._data.validation if number is None else self._data.train)

    def close(self) -> None:
        self._reader.close()


Source = MemorySource | FileSource


def _stacked(items: list[tuple[Tensor, int]]) -> Batch:
    # It stacks images into memory that the processes share.
    images: Tensor = default_collate([image for image, _ in items])
    return images, torch.tensor([label for _, label in items])


def source(
    data: ImageData, part: Part[ClassificationRecipe], device: torch.device, workers: int = 0
) -> Source:
    """Return the source of a data set's batches. `workers` are of image files only."""
    if isinstance(data.train, ImageSet):
        return MemorySource(data, part, device)
    return FileSource(data, part, device, workers)
