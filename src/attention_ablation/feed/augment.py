"""What a training does to images: of a batch in memory at once, of one from a file at a time.

Images stay uint8; the normalisation is left to the batch, on the device. torchvision, which takes
seconds to import, is imported where an image comes from a file.
"""

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

PADDING = 4
# RandomResizedCrop's, as torchvision and the reference recipes have them (Szegedy et al. 2015).
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def draws(seed: int, epoch: int, images: int) -> Tensor:
    """Return what happens to each image of an epoch, in its order: (images, 3) int64 on the CPU.

    Columns: the crop's top and left in the padded image, from 0 to 2 * PADDING, and whether it is
    flipped. They depend on the arguments only, so any process can draw and take its part.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    places = 2 * PADDING + 1
    return torch.from_numpy(generator.integers([places, places, 2], size=(images, 3)))


class PadCropFlip:
    """Images with `PADDING` px of black around, of which batches are cropped and flipped.

    They are kept padded, (N, H + 8, W + 8, C) uint8, on the device of `images`: (N, C, H, W).
    """

    def __init__(self, images: Tensor) -> None:
        self.size = images.shape[2:]
        self._padded = pad(images, [PADDING] * 4).permute(0, 2, 3, 1).contiguous()

    def __call__(self, indices: Tensor, drawn: Tensor) -> Tensor:
        """Return the images with these indices, of their old size, (n, C, H, W) uint8.

        indices: (n,) int64. drawn: (n, 3), rows of what `draws` returns. Both are on the images'
        device.
        """
        (height, width), device = self.size, indices.device
        top, left, flip = drawn[:, :, None].unbind(1)  # (n, 1) each
        rows = top + torch.arange(height, device=device)
        columns = torch.arange(width, device=device)
        columns = left + torch.where(flip == 1, width - 1 - columns, columns)
        # One index for each pixel, whose channels lie side by side, is four times as fast as an
        # index for each axis.
        _, padded_height, padded_width, channels = self._padded.shape
        lines = indices[:, None] * padded_height + rows
        pixels = lines[:, :, None] * padded_width + columns[:, None, :]
        chosen = self._padded.view(-1, channels).index_select(0, pixels.flatten())
        return chosen.view(len(indices), height, width, channels).permute(0, 3, 1, 2)


def training_crop(image: Tensor, size: int, seed: int, epoch: int, index: int) -> Tensor:
    """Return torchvision's RandomResizedCrop with a flip, (3, size, size), of (3, H, W).

    What is drawn depends on the seed, the epoch and the image's index only.
    """
    from torchvision.transforms.v2 import functional

    draws = draw(seed, epoch, index)
    top, left, height, width = crop_box(image.shape[1], image.shape[2], draws)
    crop = image[:, top : top + height, left : left + width]
    # As one block with the channels last it is resized in two thirds of the time.
    block = crop.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    resized: Tensor = functional.resize_image(block, [size, size], antialias=True)
    return resized.flip(-1) if draws[-1] < 0.5 else resized


def draw(seed: int, epoch: int, index: int) -> list[float]:
    """Return an image's numbers from [0, 1): two for each attempt, then its place, and its flip."""
    # torch's generator takes many times as long once it is seeded for each image.
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


def evaluation_crop(image: Tensor, size: int, resize: int) -> Tensor:
    """Return the centre, (3, size, size), of (3, H, W) with the shorter side made `resize`."""
    from torchvision.transforms.v2 import functional

    resized = functional.resize_image(image, [resize], antialias=True)
    centre: Tensor = functional.center_crop_image(resized, [size, size])
    return centre
