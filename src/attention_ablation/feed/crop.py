"""Crops of images from files, as torchvision's transforms v2 make them.

Everything stays uint8; the division by 255 and the normalisation are left to the batch, on the
device.
"""

import math
from collections.abc import Sequence
from random import Random

from torch import Tensor
from torchvision.transforms.v2 import functional

# RandomResizedCrop's, as torchvision and the reference recipes have them (Szegedy et al. 2015).
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


class TrainingCrop:
    """RandomResizedCrop and horizontal flip as torchvision's transforms v2 define them.

    What is drawn depends on the seed, the epoch and the image's index only, so neither workers,
    processes nor an interruption change it.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        """Return (3, size, size) of (3, H, W), uint8."""
        draws = draw(self.seed, epoch, index)
        top, left, height, width = crop_box(image.shape[1], image.shape[2], draws)
        crop = image[:, top : top + height, left : left + width]
        # As one block with the channels last it is resized in two thirds of the time.
        block = crop.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        resized: Tensor = functional.resize_image(block, [self.size, self.size], antialias=True)
        return resized.flip(-1) if draws[-1] < 0.5 else resized


def draw(seed: int, epoch: int, index: int) -> list[float]:
    """Return an image's numbers from [0, 1): two for each attempt at a crop, its place, its flip.

    torchvision's own draws, from torch's global generator, take many times as long once it is
    seeded for each image.
    """
    generator = Random(f"{seed}/{epoch}/{index}")
    return [generator.random() for _ in range(2 * ATTEMPTS + 3)]


def crop_box(height: int, width: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of RandomResizedCrop's crop, for an image and `draws`.

    The area is uniform in `SCALE`, the ratio of width to height log-uniform in `RATIO`; the first
    attempt that fits is taken, and the centre where none does.
    """
    low, high = map(math.log, RATIO)
    for area, ratio in zip(draws[: 2 * ATTEMPTS : 2], draws[1 : 2 * ATTEMPTS : 2], strict=True):
        pixels = height * width * (SCALE[0] + area * (SCALE[1] - SCALE[0]))
        aspect = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(draws[-3] * (height - h + 1))
            return top, int(draws[-2] * (width - w + 1)), h, w
    aspect = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (height - h) // 2, (width - w) // 2, h, w


class EvaluationCrop:
    """The shorter side to `resize`, then the centre of `size`. (3, H, W) -> (3, size, size)."""

    def __init__(self, size: int, resize: int) -> None:
        self.size = size
        self.resize = resize

    def __call__(self, image: Tensor) -> Tensor:
        """Return the crop, uint8."""
        resized = functional.resize_image(image, [self.resize], antialias=True)
        centre: Tensor = functional.center_crop_image(resized, [self.size, self.size])
        return centre
