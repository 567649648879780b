"""WaveNet-C: squeeze-and-excitation whose pool is a recursive wavelet transform, not the mean."""

import math

import torch
from torch import Tensor, nn

from attention_ablation.gates.parts import excitation, filtered, weighted

GROUPS = 4  # as many as orthonormal filters of 2x2
CHANNELS_PER_SET = 512  # more channels have further sets of filters

HAAR = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


def gram_schmidt(sets: int) -> Tensor:
    """Return sets of 4 random orthonormal vectors, (sets, 4, 4), as Gram-Schmidt makes them."""
    q, r = torch.linalg.qr(torch.randn(sets, 4, 4).mT)
    signs = r.diagonal(dim1=1, dim2=2)[:, None].sign()
    vectors: Tensor = (q * signs).mT
    return vectors


def haar(sets: int) -> Tensor:
    """Return Haar's filters, in the order mean, horizontal, vertical, diagonal: (sets, 4, 4)."""
    return torch.tensor(HAAR).div(2).expand(sets, 4, 4)


FILTERS = {"gram-schmidt": gram_schmidt, "haar": haar}


class WaveNet(nn.Module):
    """F -> sigmoid(W2 relu(W1 z)) * F, z a wavelet transform of F down to one place; no biases.

    The channels are in 4 groups, each with one of 4 orthonormal filters of 2x2, which is applied
    with stride 2 and without padding until one place is left; above 512 channels there are further
    sets of 4. The filters are drawn once and not trained. What the paper leaves open: an odd map
    loses its last row and column at each step, so that of 56x56 the first 32x32 have a part in z
    (repeat_edge: they are repeated instead); a side that is 1 before the other ends the steps, and
    the mean follows.

    filters: 'gram-schmidt', of random vectors, or 'haar', whose first is the mean but for a factor.
    Shape: (N, C, H, W) -> the same. Raises ValueError for channels that are not in such groups, a
    reduction above them, or other filters.
    """

    label = "reading"
    paper = "WaveNet-C, Salman et al. 2022, arXiv:2211.02695"
    filters: Tensor

    def __init__(
        self,
        channels: int,
        *,
        filters: str = "gram-schmidt",
        repeat_edge: bool = False,
        reduction: int = 16,
        gain: int = 1,
    ) -> None:
        super().__init__()
        sets = math.ceil(channels / CHANNELS_PER_SET)
        if channels % (GROUPS * sets):
            raise ValueError(
                f"expected channels in {GROUPS * sets} equal groups, one a filter, got {channels}; "
                f"choose a network or a width that {GROUPS * sets} divides"
            )
        if filters not in FILTERS:
            raise ValueError(f"expected filters {' or '.join(FILTERS)}, got '{filters}'")
        self.register_buffer("filters", FILTERS[filters](sets).reshape(-1, 2, 2).clone())
        self.mlp = excitation(channels, reduction)
        self.repeat_edge = repeat_edge
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if not self.repeat_edge:  # crop to what has a part in z
            steps = min(height, width).bit_length() - 1
            height, width = (size >> steps << steps for size in (height, width))
        # Channels last, so that the gradient of x has them last in memory, as x has in trainings.
        seen = x.movedim(1, 3)[:, :height, :width].movedim(3, 1)
        pooled = filtered(seen, self.composed(height, width))
        return weighted(x, self.mlp(pooled)[:, :, None, None], self.gain)

    def composed(self, height: int, width: int) -> Tensor:
        """Return all steps on a map of this size as one filter of that size a group: (G, H, W).

        The transform is linear: a sum with this filter takes one pass over the map, not one a step.
        """
        if min(height, width) == 1:
            return self.filters.new_full((len(self.filters), height, width), 1 / (height * width))
        # A step takes place (2a + i, 2b + j) to (a, b), times the filter at (i, j).
        after = self.composed((height + 1) // 2, (width + 1) // 2)
        split = after[:, :, None, :, None] * self.filters[:, None, :, None, :]
        return folded(folded(split.flatten(3, 4).flatten(1, 2), 1, height), 2, width)


def folded(filters: Tensor, dim: int, size: int) -> Tensor:
    """Add the last row (or column) to the one before it, which it repeats, where it is too many."""
    if filters.shape[dim] == size:
        return filters
    kept, repeated = filters.split([size - 1, 2], dim)
    return torch.cat([kept, repeated.sum(dim, keepdim=True)], dim)
