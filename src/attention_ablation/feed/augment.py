"""Augmentation of a batch in memory at once, on its device."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

PADDING = 4


def draws(seed: int, epoch: int, images: int) -> Tensor:
    """Return what happens to each image of an epoch, in its order: (images, 3) int64 on the CPU.

    Columns: the crop's top and left in the padded image, from 0 to 2 * PADDING, and whether it is
    flipped. They depend on the arguments only, so any process can draw and take its part, and one
    that resumes in the middle.
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

        Args:
            indices: (n,) int64, on the images' device.
            drawn: (n, 3), rows of what `draws` returns, on the images' device.
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
