"""FcaNet: squeeze-and-excitation whose pool is a discrete cosine transform, not only the mean."""

import math
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from attention_ablation.gates.parts import excitation, filtered, weighted

# The 16 frequencies (u, v) with the best single results, vertical and horizontal, of a 7x7 map.
FREQUENCIES = (
    *((0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)),
    *((5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2)),
)


class Fca(nn.Module):
    """F -> sigmoid(W2 relu(W1 z)) * F, z = sum over H and W of F * B_j.

    The channels are in 16 groups, each with one function of the transform, B_j; there are no
    biases. Larger maps than 7x7 have the same frequencies of a 7x7 grid of cells, u (H // 7).
    Smaller ones lack some, which would be 0; those that they have are repeated. Shape: (N, C, H, W)
    -> the same. Raises ValueError for channels that 16 does not divide or a reduction above them.
    """

    label = "exact"
    paper = "FcaNet, Qin et al. 2021, arXiv:2012.11879"
    frequencies: Tensor

    def __init__(self, channels: int, *, reduction: int = 16, gain: int = 1) -> None:
        super().__init__()
        if channels % len(FREQUENCIES):
            raise ValueError(
                f"expected channels in {len(FREQUENCIES)} equal groups, one a frequency, got "
                f"{channels}; choose a network or a width that {len(FREQUENCIES)} divides"
            )
        self.mlp = excitation(channels, reduction)
        # A buffer, so that forward copies nothing to a GPU, which would wait for it.
        given = torch.tensor(FREQUENCIES, dtype=torch.float32)
        self.register_buffer("frequencies", given, persistent=False)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        pooled = filtered(x, self.functions(x.shape[2], x.shape[3]))
        return weighted(x, self.mlp(pooled)[:, :, None, None], self.gain)

    def functions(self, height: int, width: int) -> Tensor:
        """Return the 16 functions B_j(y, x) = c(u, y) c(v, x): (16, H, W)."""
        down, across = max(1, height // 7), max(1, width // 7)
        there = [
            frequency
            for frequency, (u, v) in zip(self.frequencies.unbind(), FREQUENCIES, strict=True)
            if u * down < height and v * across < width
        ]
        u, v = torch.stack([*islice(cycle(there), len(FREQUENCIES))], dim=1)
        return cosines(u * down, height)[:, :, None] * cosines(v * across, width)[:, None]


def cosines(frequencies: Tensor, size: int) -> Tensor:
    """Return the orthonormal DCT-II's cosines of these frequencies, each of length 1: (G, size)."""
    places = torch.arange(size, device=frequencies.device) + 0.5
    squares = (1 + (frequencies > 0)) / size
    waves = torch.cos(math.pi / size * frequencies[:, None] * places)
    return squares.sqrt()[:, None] * waves
