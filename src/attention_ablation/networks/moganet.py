"""MogaNet (Li et al. 2024, arXiv:2211.03295). All maps are (N, C, H, W)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.networks.parts import start

SCALE = 1e-5  # what every learned factor starts at


def factors(channels: int) -> nn.Parameter:
    """Return a factor for each channel."""
    return nn.Parameter(torch.full((channels, 1, 1), SCALE))


def depthwise(channels: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    padding = kernel // 2 * dilation
    return nn.Conv2d(channels, channels, kernel, 1, padding, dilation, groups=channels)


class GatedAggregation(nn.Module):
    """x -> conv1x1(SiLU(conv1x1 p) * SiLU(conv1x1 v)) + x (the paper's 4.2).

    q = conv1x1 x, p = SiLU(q + a (q - mean(q))); of d = DW5x5 p, v is the first C / 8 channels,
    DW5x5 of dilation 2 of the next 3 C / 8, and DW7x7 of dilation 3 of the last C / 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.gate, self.value, self.last = (
            nn.Conv2d(channels, channels, 1) for _ in range(4)
        )
        self.factor = factors(channels)
        self.orders = [channels // 8, 3 * channels // 8, channels // 2]
        _, middle, high = self.orders
        self.low = depthwise(channels, 5)
        self.middle = depthwise(middle, 5, 2)
        self.high = depthwise(high, 7, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.first(x)
        p = F.silu(q + self.factor * (q - q.mean((2, 3), keepdim=True)))
        low, middle, high = self.low(p).split(self.orders, 1)
        v = self.value(torch.cat([low, self.middle(middle), self.high(high)], 1))
        out: Tensor = self.last(F.silu(self.gate(p)) * F.silu(v)) + x
        return out


class ChannelAggregation(nn.Module):
    """x -> conv1x1(y + b (y - GELU(conv1x1 y))), y = GELU(DW3x3 conv1x1 x) (the paper's 4.3).

    y has `hidden` channels; the convolution in the brackets has one output for all of them.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, hidden, 1)
        self.spatial = depthwise(hidden, 3)
        self.common = nn.Conv2d(hidden, 1, 1)
        self.factor = factors(hidden)
        self.last = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.spatial(self.first(x)))
        out: Tensor = self.last(y + self.factor * (y - F.gelu(self.common(y))))
        return out


class Block(nn.Module):
    """x -> x + l1 aggregation(BN(x)), then x + l2 channels(BN(x)): (N, C, H, W) -> the same."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.spatial = GatedAggregation(channels)
        self.factor1 = factors(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.channel = ChannelAggregation(channels, ratio * channels)
        self.factor2 = factors(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.factor1 * self.spatial(self.norm1(x))
        out: Tensor = x + self.factor2 * self.channel(self.norm2(x))
        return out


def embedding(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a convolution that halves the map, and its BatchNorm."""
    return [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs)]


def moganet(
    channels: Sequence[int], depths: Sequence[int], ratios: Sequence[int], classes: int
) -> nn.Sequential:
    """Return the network: (N, 3, H, W) -> (N, classes); a BatchNorm ends each stage."""
    stem = channels[0] // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(*embedding(3, stem), nn.GELU())
    )
    inputs = stem
    for i, (outputs, depth, ratio) in enumerate(zip(channels, depths, ratios, strict=True), 1):
        blocks = (Block(outputs, ratio) for _ in range(depth))
        norm = nn.BatchNorm2d(outputs)
        layers[f"stage{i}"] = nn.Sequential(*embedding(inputs, outputs), *blocks, norm)
        inputs = outputs
    ends = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    network = nn.Sequential(layers | ends | {"fc": nn.Linear(inputs, classes)})
    start(network)
    return network
