"""Batches of image files for classification, made by worker processes."""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from attention_ablation.datasets.reading.data import FileList, ImageData
from attention_ablation.feed.augment import evaluation_crop, training_crop
from attention_ablation.feed.batches import Batch, Source
from attention_ablation.feed.order import Key, Part
from attention_ablation.feed.workers import Reader
from attention_ablation.spec.recipes import ClassificationRecipe


class FileSource(Source):
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
        return self.normalised(images.permute(0, 3, 1, 2)), labels

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


def _stacked(items: list[tuple[Tensor, int]]) -> Batch:
    # It stacks images into memory that the processes share.
    images: Tensor = default_collate([image for image, _ in items])
    return images, torch.tensor([label for _, label in items])
