"""Batches of a data set: from memory where it is small, from image files where it is not.

Either source gives this process's part of every batch, as a network sees it, on its device. What
an image looks like in a step depends on the seed, the epoch and its place only.
"""

import weakref
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.files import FileList, ImageFiles
from attention_ablation.datasets.images import EvaluationCrop, TrainingCrop, read_image
from attention_ablation.datasets.load import ImageData, ImageSet, network_input
from attention_ablation.datasets.records import IMAGENET_MEAN, IMAGENET_STD, Images
from attention_ablation.feed.augment import PadCropFlip, draws
from attention_ablation.feed.workers import fetch, worker_loader
from attention_ablation.spec.recipes import ClassificationRecipe

EVALUATION_BATCH = 250
Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """What a training asks of its data. Images are (n, 3, H, W) floats, labels (n,) int64."""

    fingerprint: str
    classes: int
    train_images: int
    validation_batches: int  # of this process

    def training(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield this process's parts of the epoch's full batches, from the `first`, from 0."""
        ...

    def validation(self) -> Iterator[Batch]:
        """Yield this process's part of the validation set, every image of it once."""
        ...

    def close(self) -> None:
        """End the worker processes, if there are any."""
        ...


class Part:
    """Which images this process takes: number `rank` of `size`, of a recipe and a seed."""

    def __init__(self, recipe: ClassificationRecipe, seed: int, rank: int, size: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self.rank = rank
        self.size = size
        self.share = recipe.batch_size // size

    def order(self, images: int, epoch: int) -> Tensor:
        """Return the indices of an epoch's images in their order, of all processes, on the CPU."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(images, generator=generator)

    def steps(self, images: int, first: int) -> Iterator[slice]:
        """Yield this process's part of each batch, from the `first`, as a slice of the order.

        A last batch that is not full is left out.
        """
        for step in range(first, images // self.recipe.batch_size):
            begin = step * self.recipe.batch_size + self.rank * self.share
            yield slice(begin, begin + self.share)

    def evaluated(self, images: int) -> tuple[Tensor, ...]:
        """Return the indices of this process's validation images, batch by batch.

        Every image is in one process's part, also where the parts are not of one size.
        """
        mine: tuple[Tensor, ...] = torch.arange(images)[self.rank :: self.size].split(
            EVALUATION_BATCH
        )
        return mine


class MemorySource:
    """Batches of a data set in memory, on the device, so that none of them waits for Python."""

    def __init__(self, data: ImageData, part: Part, device: torch.device) -> None:
        self.fingerprint = data.fingerprint
        self.classes = data.classes
        self.train_images = len(data.train.labels)
        self.validation_set = data.validation.to(device)
        self._evaluated = part.evaluated(len(data.validation.labels))
        self.validation_batches = len(self._evaluated)
        self._part = part
        self._device = device
        self._mean, self._std = (
            value.to(device) if isinstance(value, Tensor) else value
            for value in (data.mean, data.std)
        )
        self.train_set = data.train.to(device)
        augmented = part.recipe.augmentation == "pad-crop-flip"
        self._augment = PadCropFlip(self.train_set.images) if augmented else None

    def training(self, epoch: int, first: int) -> Iterator[Batch]:
        """See `Source`."""
        part, count = self._part, self.train_images
        order = part.order(count, epoch).to(self._device)
        if self._augment is None:
            for mine in part.steps(count, first):
                yield self.batch(self.train_set, order[mine])
            return
        drawn = draws(part.seed, epoch, count).to(self._device)
        for mine in part.steps(count, first):
            images = self._augment(order[mine], drawn[mine])
            labels = self.train_set.labels[order[mine]]
            yield network_input(images, self._mean, self._std), labels

    def validation(self) -> Iterator[Batch]:
        """See `Source`."""
        for indices in self._evaluated:
            yield self.batch(self.validation_set, indices.to(self._device))

    def batch(self, images: ImageSet, indices: Tensor) -> Batch:
        """Return some images as a network sees them, and their labels."""
        pixels = network_input(images.images[indices], self._mean, self._std)
        return pixels, images.labels[indices]

    def close(self) -> None:
        """There is nothing to end."""


class FileSource:
    """Batches of image files, read, decoded and cropped by worker processes.

    Raises UserError, naming it, for a file that does not decode.
    """

    def __init__(
        self, files: ImageFiles, part: Part, device: torch.device, workers: int = 0
    ) -> None:
        self.fingerprint = files.fingerprint
        self.classes = files.classes
        self.train_images = len(files.train.labels)
        self._evaluated = part.evaluated(len(files.validation.labels))
        self.validation_batches = len(self._evaluated)
        self._part = part
        self._device = device
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self._crops = Crops(files, part.recipe, part.seed)
        self._workers = workers
        self._keys: Iterator[list[Key]] = iter(())
        self._loaders: list[DataLoader[tuple[Tensor, int]]] = []  # none or one
        self._under_way: list[Generator[Batch, None, None]] = []
        # Also at the process's end, which would wait for workers that ignore signals.
        weakref.finalize(self, _end, self._under_way, self._loaders)

    def training(self, epoch: int, first: int) -> Iterator[Batch]:
        """See `Source`."""
        order = self._part.order(self.train_images, epoch)
        steps = self._part.steps(self.train_images, first)
        return self._batches([(epoch, i) for i in order[mine].tolist()] for mine in steps)

    def validation(self) -> Iterator[Batch]:
        """See `Source`."""
        return self._batches([(None, i) for i in indices.tolist()] for indices in self._evaluated)

    def close(self) -> None:
        """End the workers. They start again when they are needed."""
        _end(self._under_way, self._loaders)

    def _batches(self, keys: Iterator[list["Key"]]) -> Iterator[Batch]:
        """Return the batches of `keys`, by workers that stay for the next call."""
        self._under_way[:] = [self._load(keys)]
        return self._under_way[0]

    def _load(self, keys: Iterator[list["Key"]]) -> Generator[Batch, None, None]:
        self._keys = keys
        if not self._loaders:
            loader = worker_loader(
                self._crops,
                _Asked(self),
                collate,
                self._workers,
                stay=True,
                pin_memory=self._device.type == "cuda",
            )
            self._loaders.append(loader)
        yield from self.on_device(self._loaders[0])

    def on_device(self, batches: Iterable[Batch | str]) -> Iterator[Batch]:
        """Yield what the workers made, (n, H, W, 3) bytes or a sentence, as the network sees it."""
        for batch in batches:  # what is left of an earlier call is thrown away
            if isinstance(batch, str):
                raise UserError(batch)
            images, labels = (part.to(self._device, non_blocking=True) for part in batch)
            # Loaded as (n, H, W, 3): the channels last is how they lie in a file's image.
            yield network_input(images.permute(0, 3, 1, 2), self._mean, self._std), labels


# The epoch, None for the validation set, and the image's index in its split.
Key = tuple[int | None, int]


class Crops(Dataset[tuple[Tensor, int]]):
    """The images of keys, cropped, with their labels; or a sentence about one that has no image."""

    def __init__(self, files: ImageFiles, recipe: ClassificationRecipe, seed: int) -> None:
        dataset = recipe.dataset
        assert isinstance(dataset, Images)
        self._files = files
        self._augmented = recipe.augmentation == "crop-flip"
        self._training = TrainingCrop(dataset.image_size, seed)
        self._evaluation = EvaluationCrop(dataset.image_size, dataset.resize)

    def __getitems__(self, keys: list[Key]) -> list[tuple[Tensor, int]] | str:
        """Return (H, W, 3) uint8 images with their labels."""
        return fetch(keys, self._item, self._path)

    def _path(self, key: Key) -> Path:
        epoch, index = key
        return self._split(epoch).path(index)

    def _split(self, epoch: int | None) -> FileList:
        return self._files.validation if epoch is None else self._files.train

    def _item(self, key: Key) -> tuple[Tensor, int]:
        epoch, index = key
        image = read_image(self._path(key))
        if epoch is not None and self._augmented:
            cropped = self._training(image, epoch, index)
        else:
            cropped = self._evaluation(image)
        return cropped.permute(1, 2, 0).contiguous(), int(self._split(epoch).labels[index])


def collate(items: list[tuple[Tensor, int]] | str) -> Batch | str:
    """Return the items of a batch as one: (n, H, W, 3) uint8 and (n,) int64."""
    if isinstance(items, str):
        return items
    # It stacks images into memory that the processes share.
    images: Tensor = default_collate([image for image, _ in items])
    return images, torch.tensor([label for _, label in items])


class _Asked:
    """The keys that a source was last asked for, as the loader's sampler."""

    def __init__(self, source: FileSource) -> None:
        self._source = source

    def __iter__(self) -> Iterator[list[Key]]:
        return self._source._keys


def _end(
    under_way: list[Generator[Batch, None, None]], loaders: list[DataLoader[tuple[Tensor, int]]]
) -> None:
    for batches in under_way:
        batches.close()
    under_way.clear()
    loaders.clear()  # with a loader its workers end


def source(
    data: ImageData | ImageFiles, part: Part, device: torch.device, workers: int = 0
) -> MemorySource | FileSource:
    """Return the source of a data set's batches. `workers` are of image files only."""
    if isinstance(data, ImageData):
        return MemorySource(data, part, device)
    return FileSource(data, part, device, workers)
