"""What several gates are made of: an MLP, filtered or weighted sums, a maximum, a weighted map."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def hidden_units(channels: int, reduction: int) -> int:
    """Return round(C / r). Raises ValueError for a reduction above the channels."""
    if reduction > channels:
        raise ValueError(
            f"expected a reduction of at most the {channels} channels, got {reduction}"
        )
    return round(channels / reduction)


def excitation(channels: int, reduction: int) -> nn.Sequential:
    """Return SE's two linear layers without biases, W2 relu(W1 z): (N, C) -> (N, C)."""
    hidden = hidden_units(channels, reduction)
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False),
        nn.ReLU(),
        nn.Linear(hidden, channels, bias=False),
    )


def filtered(x: Tensor, filters: Tensor) -> Tensor:
    """Return the sum over the map of each channel times its filter: (N, C, H, W) -> (N, C).

    filters: (G, H, W), the first for the first C / G channels, and so on.
    """
    # Channels last, so that the gradient of x has them last in memory, as x has in trainings. Not
    # by einsum, a matrix product, which would be counted.
    grouped = x.movedim(1, 3).unflatten(3, (len(filters), -1))
    factors = filters.to(x.dtype).movedim(0, 2).contiguous()[..., None]
    sums: Tensor = (grouped * factors).sum((1, 2))
    return sums.flatten(1)


def mean_of_map(x: Tensor) -> Tensor:
    """Return the mean of each channel: (N, C, H, W) -> (N, C)."""
    # Compiled, the sum would go through the whole map for every few channels; a row stays in the
    # cache.
    return x.mean(3).mean(2) if torch.compiler.is_compiling() else mean(x, (2, 3))


def mean_of_channels(x: Tensor) -> Tensor:
    """Return the mean over the channels: (N, C, H, W) -> (N, 1, H, W)."""
    return mean(x, (1,), keepdim=True)


def mean(x: Tensor, dims: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Return the mean over dimensions; on a CPU with the digits of `Tensor.mean`.

    The gradient of a sum is expanded and added to others in one pass; the gradient of torch's mean
    is written as a map, and not channels-last, which takes ten times as long.
    """
    if x.dtype.itemsize < 4:  # a sum of them may overflow
        return x.mean(dims, keepdim)
    count = math.prod([x.shape[dim] for dim in dims])  # torch.compile takes no generator
    return x.sum(dims, keepdim) / count


def largest_of_map(x: Tensor) -> Tensor:
    """Return the maximum of each channel: (N, C, H, W) -> (N, C).

    Of equal ones the first gets the gradient; see `largest`.
    """
    # A CPU's `max` compares number by number. A GPU's pooling has no deterministic gradient.
    if x.is_cpu and not torch.compiler.is_compiling():
        return F.max_pool2d(x, x.shape[2:]).flatten(1)
    return largest(x.flatten(2), 2).squeeze(2)


def largest(x: Tensor, dim: int) -> Tensor:
    """Return the maximum over a dimension, which stays with size 1.

    Of equal ones the first gets the gradient, but all a share of it where torch.compile is at work.
    """
    # Each the fast way: a shared gradient takes four passes over the map, which the compiler makes
    # parts of others, and max's is a scatter, which stands alone.
    if torch.compiler.is_compiling():
        shared: Tensor = SharedMaximum.apply(x, dim)
        return shared
    return x.max(dim, keepdim=True).values


class SharedMaximum(torch.autograd.Function):
    """The maximum over a dimension, whose gradient equal ones share.

    It is `amax` with a count of equal ones in single precision: torch's own is in whole numbers,
    which compiled code for a CPU converts again at every pixel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        largest = x.amax(dim, keepdim=True)
        ctx.save_for_backward(x, largest)
        ctx.dim = dim
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, largest = ctx.saved_tensors
        mask = x == largest
        share = gradient / mask.sum(ctx.dim, keepdim=True, dtype=torch.float32)
        return torch.where(mask, share.to(gradient.dtype), 0), None


def weighted(x: Tensor, raw: Tensor, gain: int = 1) -> Tensor:
    """Return g sigmoid(raw) * x, in the dtype and memory layout of x.

    The authors' g is 1: a gate that has learned nothing, whose raw attention is near 0, halves its
    map. With g = 2 (start: identity) it leaves the map as it is.
    """
    weights = raw.sigmoid() if gain == 1 else gain * raw.sigmoid()
    if torch.compiler.is_compiling() and weights.shape[2:] == (1, 1):
        # So that its gradient is summed row by row, as in `mean_of_map`.
        weights = weights.expand(-1, -1, x.shape[2], 1)
    # Autocast makes sums and pools single precision, which the product would hand on to all that
    # follows. In this order the product keeps the memory layout of x.
    return x * weights.to(x.dtype)


def weighted_sum(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return sum_i weights[:, i] maps[i], in the dtype and memory layout of the maps.

    Shape: n maps (N, C, H, W) and weights (N, n, C) -> (N, C, H, W). Raises ValueError where there
    are other than n maps.
    """
    if len(maps) != weights.shape[1]:
        raise ValueError(f"expected {weights.shape[1]} maps, one a weight, got {len(maps)}")
    factors = weights.to(maps[-1].dtype)[..., None, None].unbind(1)
    out = maps[0] * factors[0]
    for x, factor in zip(maps[1:], factors[1:], strict=True):
        out = torch.addcmul(out, x, factor)  # one pass a map; a stack would copy them all
    return out
