"""A wide residual network for images of satellites (Papoutsis et al. 2021, arXiv:2111.09451)."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn


def normalised(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


class Block(nn.Module):
    """x -> gate(conv3x3 ReLU BN conv3x3 x) + conv1x1 x: (N, C, H, W) -> (N, C', H / stride, ...).

    No BatchNorm stands between the second convolution and the gate.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, gate: nn.Module) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            *normalised(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.gate = gate
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gate(self.residual(x)) + self.shortcut(x)
        return out


def wide_residual_network(
    stem: int, groups: Sequence[int], gates: Iterator[nn.Module], classes: int
) -> nn.Sequential:
    """Return the network: (N, 3, H, W) -> (N, classes), one block a group."""
    first = nn.Conv2d(3, stem, 3, padding=1, bias=False)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(first, *normalised(stem)))
    inputs = stem
    for i, outputs in enumerate(groups, 1):
        block = Block(inputs, outputs, 1 if i == 1 else 2, next(gates))
        layers[f"group{i}"] = nn.Sequential(block, *normalised(outputs))
        inputs = outputs
    ends = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(layers | ends | {"fc": nn.Linear(inputs, classes)})
