"""CBAM (Woo et al. 2018): channel attention, spatial attention, and their arrangements.

Channel attention with average pooling alone is squeeze-and-excitation (Hu et al. 2018).
"""

import torch
from torch import Tensor, nn

from attention_ablation.gates.parts import (
    hidden_units,
    largest,
    largest_of_map,
    mean_of_channels,
    mean_of_map,
    weighted,
)
from attention_ablation.gates.record import Attention

NORM_MOMENTUM = 0.01  # of the BatchNorm after the spatial convolution, in the authors' code

POOLS = {"avg": mean_of_map, "max": largest_of_map}


class ChannelAttention(nn.Module):
    """Raw channel attention (eq. 2): sum over the pools p of MLP(p(F)), before the sigmoid.

    The hidden layer has round(C / r) units: the paper's MobileNet counts need the rounding.
    Shape: (N, C, H, W) -> (N, C, 1, 1). Raises ValueError for a reduction above the channels.
    """

    def __init__(self, channels: int, *, pooling: str = "avg&max", reduction: int = 16) -> None:
        super().__init__()
        hidden = hidden_units(channels, reduction)
        self.channels = channels
        self.pools = pooling.split("&")
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.stack([POOLS[pool](x) for pool in self.pools])  # (pools, N, C)
        raw: Tensor = self.mlp(pooled).sum(dim=0)
        return raw[:, :, None, None]


class ChannelPool(nn.Module):
    """The maximum and the mean over the channels, in that order: (N, C, H, W) -> (N, 2, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([largest(x, 1), mean_of_channels(x)], dim=1)


class SpatialAttention(nn.Module):
    """Raw spatial attention (eq. 3): BN(conv_kxk(descriptor(F))), before the sigmoid.

    The BatchNorm (`norm`) is in the authors' code and not in the paper's formula; its weight starts
    at 0, so that the gate starts as the constant 0.5. The descriptor is 'pool' or 'conv1x1'
    (learned, Table 2), after which the paper says nothing: BatchNorm, as after every convolution.
    Shape: (N, C, H, W) -> (N, 1, H, W).
    """

    def __init__(
        self, channels: int, *, descriptor: str = "pool", kernel: int = 7, norm: bool = True
    ) -> None:
        super().__init__()
        self.descriptor: nn.Module = ChannelPool()
        if descriptor == "conv1x1":
            self.descriptor = nn.Sequential(
                nn.Conv2d(channels, 1, 1, bias=False), nn.BatchNorm2d(1, momentum=NORM_MOMENTUM)
            )
        inputs = 2 if descriptor == "pool" else 1
        self.conv = nn.Conv2d(inputs, 1, kernel, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = nn.BatchNorm2d(1, momentum=NORM_MOMENTUM)
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        raw: Tensor = self.norm(self.conv(self.descriptor(x)))
        return raw


class Gate(nn.Module):
    """One attention, applied: F -> g sigmoid(A(F)) * F. Shape: (N, C, H, W) -> the same.

    The authors' g is 1: a gate that has learned nothing, whose A is near 0, halves its map. With
    g = 2 (start: identity) it leaves the map as it is.
    """

    def __init__(self, attention: nn.Module, gain: int = 1) -> None:
        super().__init__()
        self.attention = attention
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return weighted(x, self.attention(x), self.gain)


class ParallelGate(nn.Module):
    """Both attentions see F: F -> g sigmoid(Ac(F) + As(F)) * F (section 4.1, 'Arrangement').

    g is the gain of `Gate`.
    """

    def __init__(self, channel: nn.Module, spatial: nn.Module, gain: int = 1) -> None:
        super().__init__()
        self.channel = channel
        self.spatial = spatial
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        # Cast before they are broadcast, so that no map of single precision is kept.
        raw: Tensor = self.channel(x).to(x.dtype) + self.spatial(x).to(x.dtype)
        return weighted(x, raw, self.gain)


class SequentialGates(nn.Sequential):
    """One gate, or one after the other: (N, C, H, W) -> the same."""


def build_cbam(attention: Attention, channels: int) -> nn.Module:
    """Return the parts that `attention` names, arranged; the identity where it names none.

    Channel-first is F' = Mc(F) * F, F'' = Ms(F') * F' (eq. 1). Raises ValueError as the parts do.
    """
    parts: list[nn.Module] = []
    if attention.pooling:
        channel = attention.model_dump(include={"pooling", "reduction"})
        parts.append(ChannelAttention(channels, **channel))
    if attention.descriptor:
        spatial = attention.model_dump(include={"descriptor", "kernel", "norm"})
        parts.append(SpatialAttention(channels, **spatial))
    gain = 2 if attention.start == "identity" else 1
    if not parts:
        return nn.Identity()
    if attention.arrangement == "parallel":
        return ParallelGate(parts[0], parts[1], gain)
    if attention.arrangement == "spatial-first":
        parts.reverse()
    return SequentialGates(*(Gate(part, gain) for part in parts))
