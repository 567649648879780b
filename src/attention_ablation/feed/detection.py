"""Batches for detection: images have their own sizes, so a batch is a list of them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from attention_ablation.datasets.reading.data import DetectionData, Target
from attention_ablation.feed.detection_augment import augmented, sample_seed
from attention_ablation.feed.order import Key, Part
from attention_ablation.feed.reader import Reader
from attention_ablation.spec.recipes import DetectionRecipe

Batch = tuple[list[Tensor], list[Target]]


class DetectionSource:
    """Training images, (3, H, W) from 0 to 1, with their targets, on the device.

    An epoch goes on in the data where the one before ended; the order of each pass through them
    depends on the seed and the pass only, and an image's augmentation on it, too.
    """

    def __init__(
        self,
        data: DetectionData,
        part: Part[DetectionRecipe],
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self._images = data.train
        self._part = part
        self._device = device
        # Of data in memory a worker would only make copies.
        workers = 0 if part.recipe.dataset.in_memory else workers
        self.reader = Reader(self._item, self._name, _lists, workers)

    def training(self, steps: range) -> Iterator[Batch]:
        """Yield this process's parts of the batches of steps."""
        keys = self._part.keys(len(self._images), steps)
        for images, targets in self.reader.batches(keys):
            yield (
                to_device(images, self._device),
                [{k: v.to(self._device) for k, v in target.items()} for target in targets],
            )

    def _item(self, key: Key) -> tuple[Tensor, Target]:
        number, index = key
        image, target = self._images[index]
        seed = sample_seed(self._part.seed, (number or 1) - 1, index)
        return augmented(image, target, self._part.recipe.augmentation, seed)

    def _name(self, key: Key) -> str:
        path = getattr(self._images, "path", None)
        return str(path(key[1])) if path else f"training image {key[1]}"


def to_device(images: list[Tensor], device: torch.device) -> list[Tensor]:
    """Return bytes as numbers from 0 to 1 on a device."""
    return [image.to(device).float().div_(255) for image in images]


def _lists(pairs: list[tuple[Tensor, Target]]) -> Batch:
    return [image for image, _ in pairs], [target for _, target in pairs]
