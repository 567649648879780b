"""Residual Attention Network (Wang et al. 2017, arXiv:1704.06904), with gates in its units."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

Gates = Iterator[nn.Module]  # the next one is of the next unit


def before(channels: int) -> list[nn.Module]:
    """Return what stands before a convolution."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Unit(nn.Module):
    """x -> gate(W p) + x, p = ReLU(BN(x)): (N, C, H, W) -> (N, C', H / stride, W / stride).

    W: 1x1 to C' / 4, 3x3 with the stride, 1x1 to C', BatchNorm and ReLU between. Where the shape
    changes, a 1x1 convolution of p stands for x.
    """

    def __init__(self, inputs: int, outputs: int, gates: Gates, stride: int = 1) -> None:
        super().__init__()
        inner = outputs // 4
        self.before = nn.Sequential(*before(inputs))
        self.residual = nn.Sequential(
            conv(inputs, inner),
            *before(inner),
            conv(inner, inner, 3, stride),
            *before(inner),
            conv(inner, outputs),
        )
        self.gate = next(gates)
        changes = stride > 1 or inputs != outputs
        self.shortcut = conv(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        p = self.before(x)
        out: Tensor = self.gate(self.residual(p))
        return out + (x if self.shortcut is None else self.shortcut(p))


class Hourglass(nn.Module):
    """A mask branch's way down and up, without the last skip: (N, C, H, W) -> the same.

    Down: max-pool 3x3 with stride 2, unit. Then, but at the bottom, y -> inner(y) + y + unit(y).
    Up: unit, bilinear to the size of x.
    """

    def __init__(self, channels: int, depth: int, gates: Gates) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.MaxPool2d(3, 2, 1), Unit(channels, channels, gates))
        self.inner = Hourglass(channels, depth - 1, gates) if depth > 1 else None
        self.skip = Unit(channels, channels, gates) if depth > 1 else None
        self.up = Unit(channels, channels, gates)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x)
        if self.inner is not None and self.skip is not None:
            y = self.inner(y) + y + self.skip(y)
        size = x.shape[2:]
        return F.interpolate(self.up(y), size=size, mode="bilinear", align_corners=True)


class AttentionModule(nn.Module):
    """y = unit(x), T = unit(unit(y)), x -> unit((1 + M) T): (N, C, H, W) -> the same (eq. 3).

    M = sigmoid(conv(hourglass(y) + T)), conv: BatchNorm, ReLU, 1x1, twice.
    """

    def __init__(self, channels: int, depth: int, gates: Gates) -> None:
        super().__init__()
        first, *trunk, last = (Unit(channels, channels, gates) for _ in range(4))
        self.first, self.trunk, self.last = first, nn.Sequential(*trunk), last
        self.hourglass = Hourglass(channels, depth, gates)
        layers = (*before(channels), conv(channels, channels))
        again = (*before(channels), conv(channels, channels))
        self.mask = nn.Sequential(*layers, *again, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        trunk = self.trunk(y)
        mask = self.mask(self.hourglass(y) + trunk)
        out: Tensor = self.last((1 + mask) * trunk)
        return out


def residual_attention_network(
    stem: int, stages: Sequence[int], depths: Sequence[int], gates: Gates, classes: int
) -> nn.Sequential:
    """Return the network: (N, 3, H, W) -> (N, classes).

    stages: output channels. depths: of each stage's mask branch; 0: three units instead.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=conv(3, stem, 7, 2),
        bn1=nn.BatchNorm2d(stem),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    inputs = stem
    for i, (outputs, depth) in enumerate(zip(stages, depths, strict=True), 1):
        stage = nn.Sequential(Unit(inputs, outputs, gates, stride=1 if i == 1 else 2))
        if depth:
            stage.append(AttentionModule(outputs, depth, gates))
        else:
            stage.extend([Unit(outputs, outputs, gates) for _ in range(2)])
        layers[f"stage{i}"] = stage
        inputs = outputs
    stage.extend(before(inputs))
    ends = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(layers | ends | {"fc": nn.Linear(inputs, classes)})
