"""Batches for detection: images have their own sizes, so a batch is a list of them."""

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from attention_ablation.datasets.reading.data import DetectionData, DetectionSet, Target
from attention_ablation.feed.order import Key, Part
from attention_ablation.feed.workers import Reader
from attention_ablation.spec.recipes import DetectionRecipe

Batch = tuple[list[Tensor], list[Target]]
# The bytes of all images, their shapes, the objects of all, and how many each has.
_Packed = tuple[Tensor, list[torch.Size], Target, list[int]]
NEEDED = ("boxes", "labels", "difficult", "crowd")  # of a target, by a training or an evaluation
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
    """Images, (3, H, W) from 0 to 1, on the device, with their targets, which stay on the CPU.

    A training epoch goes on in the data where the one before ended; the order of each pass through
    them depends on the seed and the pass only, and an image's augmentation on it, too.
    """

    def __init__(
        self,
        data: DetectionData,
        part: Part[DetectionRecipe],
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self._data = data
        self._part = part
        self._device = device
        # Of data in memory a worker would only make copies.
        workers = 0 if part.recipe.dataset.in_memory else workers
        pinned = device.type == "cuda"
        self._reader = Reader(self._item, self._name, _packed, workers, pin_memory=pinned)

    def training(self, steps: range) -> Iterator[Batch]:
        """Return this process's parts of the batches of steps."""
        return self._batches(self._part.keys(len(self._data.train), steps))

    def validation(self, parts: Iterable[range]) -> Iterator[Batch]:
        """Return a batch of validation images, as they are, for each range of their indices."""
        return self._batches([(None, index) for index in part] for part in parts)

    def close(self) -> None:
        """End the workers."""
        self._reader.close()

    def _batches(self, keys: Iterable[list[Key]]) -> Iterator[Batch]:
        for pixels, shapes, objects, counts in self._reader.batches(keys):
            values = pixels.to(self._device, non_blocking=True).float().div_(255)
            images = values.split([math.prod(shape) for shape in shapes])
            rows = zip(*(column.split(counts) for column in objects.values()), strict=True)
            yield (
                [image.view(shape) for image, shape in zip(images, shapes, strict=True)],
                [dict(zip(objects, row, strict=True)) for row in rows],
            )

    def _item(self, key: Key) -> tuple[Tensor, Target]:
        number, index = key
        image, target = self._images(number)[index]
        if number is None:
            return image, target
        seed = sample_seed(self._part.seed, number - 1, index)
        return augmented(image, target, self._part.recipe.augmentation, seed)

    def _name(self, key: Key) -> str:
        number, index = key
        if file := getattr(self._images(number), "file", None):
            return str(file(index)[0])
        return f"{'validation' if number is None else 'training'} image {index}"

    def _images(self, number: int | None) -> DetectionSet:
        return self._data.validation if number is None else self._data.train


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


def _packed(pairs: list[tuple[Tensor, Target]]) -> _Packed:
    # Few tensors, because each has its price on its way from a worker and to a GPU.
    images, targets = zip(*pairs, strict=True)
    return (
        torch.cat([image.flatten() for image in images]),
        [image.shape for image in images],
        {name: torch.cat([target[name] for target in targets]) for name in NEEDED},
        [len(target["labels"]) for target in targets],
    )
