"""Batches for detection: images have their own sizes, so a batch is a list of them."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from attention_ablation.datasets.reading.data import DetectionData, Target
from attention_ablation.feed.order import Key, Part
from attention_ablation.feed.workers import Reader
from attention_ablation.spec.recipes import DetectionRecipe

Batch = tuple[list[Tensor], list[Target]]
FILL = (124, 116, 104)  # around a zoomed-out image: ImageNet's mean, 0 to 255
ZOOM_OUT = 0.6  # of Table 7's lineage; SSD's own is 0.5
_PER_OBJECT = ("labels", "area", "difficult", "crowd")
_TRANSFORMS = {
    "flip": v2.RandomHorizontalFlip(0.5),
    # Liu et al. 2016, 2.2 and 3.6; the IoU crop may cut objects off or down to nothing.
    "ssd": v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut({tv_tensors.Image: FILL, "others": 0}, (1.0, 4.0), ZOOM_OUT),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(0.5),
            v2.SanitizeBoundingBoxes(
                labels_getter=lambda inputs: tuple(inputs[1][k] for k in _PER_OBJECT)
            ),
        ]
    ),
}


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
        self._reader = Reader(self._item, self._name, _lists, workers)

    def training(self, steps: range) -> Iterator[Batch]:
        """Yield this process's parts of the batches of steps."""
        keys = self._part.keys(len(self._images), steps)
        for images, targets in self._reader.batches(keys):
            yield (
                to_device(images, self._device),
                [{k: v.to(self._device) for k, v in target.items()} for target in targets],
            )

    def close(self) -> None:
        """End the workers."""
        self._reader.close()

    def _item(self, key: Key) -> tuple[Tensor, Target]:
        number, index = key
        image, target = self._images[index]
        seed = sample_seed(self._part.seed, (number or 1) - 1, index)
        return augmented(image, target, self._part.recipe.augmentation, seed)

    def _name(self, key: Key) -> str:
        file = getattr(self._images, "file", None)
        return str(file(key[1])[0]) if file else f"training image {key[1]}"


def to_device(images: list[Tensor], device: torch.device) -> list[Tensor]:
    """Return bytes as numbers from 0 to 1 on a device."""
    return [image.to(device).float().div_(255) for image in images]


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of one image in one epoch of a training, whichever process loads it."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0])


def augmented(
    image: Tensor, target: Target, augmentation: Literal["none", "flip", "ssd"], seed: int
) -> tuple[Tensor, Target]:
    """Return an image, (3, H, W) uint8, and its target as a training sees them.

    'none': as they are. 'flip': mirrored half of the time. 'ssd': photometric distortion, zoom
    out, IoU crop and flip; H and W change. Nothing is resized, which is the detector's. The same
    seed gives the same; torch's own generators stay as they were. `area` stays the original's.
    """
    if augmentation == "none":
        return image, target
    canvas = image.shape[-2:]
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=canvas)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would set the generators of GPUs as well.
        torch.default_generator.manual_seed(seed)
        image, target = _TRANSFORMS[augmentation](
            tv_tensors.Image(image), target | {"boxes": boxes}
        )
    plain = {name: values.as_subclass(Tensor) for name, values in target.items()}
    return image.as_subclass(Tensor), plain


def _lists(pairs: list[tuple[Tensor, Target]]) -> Batch:
    return [image for image, _ in pairs], [target for _, target in pairs]
