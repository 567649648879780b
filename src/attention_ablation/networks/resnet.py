"""ResNet, ResNeXt and WideResNet (He et al. 2016, Xie et al. 2017), with places for gates.

Names and order of the parameters are torchvision's.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.gates.build import Gates
from attention_ablation.networks.record import Backbone

STEM_CHANNELS = 64


class Block(nn.Module):
    """A residual block: convolutions, the gate, then the shortcut. (N, C, H, W) -> (N, C', ...).

    inside: whether the gate gets the maps of all convolutions.
    """

    def __init__(
        self, convolutions: Sequence[nn.Conv2d], stride: int, gate: nn.Module, *, inside: bool
    ) -> None:
        super().__init__()
        self.convolutions = len(convolutions)
        for i, conv in enumerate(convolutions, 1):
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(conv.out_channels))
        self.relu = nn.ReLU(inplace=True)
        inputs, outputs = convolutions[0].in_channels, convolutions[-1].out_channels
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))
        self.gate, self.inside = gate, inside

    @property
    def last_norm(self) -> Any:
        return getattr(self, f"bn{self.convolutions}")

    def added(self, x: Tensor) -> Tensor:
        """Return the gated map with the shortcut added, before the last ReLU."""
        out, maps = x, []
        for i in range(1, self.convolutions + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = self.relu(out) if i < self.convolutions else out
            if self.inside:
                maps.append(out)
        gated: Tensor = self.gate(maps if self.inside else out)
        return gated + (x if self.downsample is None else self.downsample(x))

    def forward(self, x: Tensor) -> Any:
        return self.relu(self.added(x))


class GatedStage(nn.Sequential):
    """Blocks, and a gate that makes the stage's output of all their sums: (N, C, H, W) -> ..."""

    def forward(self, x: Tensor) -> Tensor:
        *blocks, gate = self
        sums = []
        for block in blocks:
            sums.append(block.added(x))  # type: ignore[operator]
            x = F.relu(sums[-1])  # not in place: the gate gets the sum
        return F.relu(gate(sums))


def build_resnet(network: Any, backbone: Backbone, gates: Gates, classes: int) -> nn.Module:
    """Return a network with the backbone's width, stride and stem, and gates at their place.

    network: a record of families/resnet.py.
    """
    inputs = int(STEM_CHANNELS * backbone.width)
    stem = nn.Conv2d(3, inputs, 7, stride=2, padding=3, bias=False)
    pool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
    if backbone.stem == "cifar":
        stem, pool = nn.Conv2d(3, inputs, 3, padding=1, bias=False), nn.Identity()
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=stem, bn1=nn.BatchNorm2d(inputs), relu=nn.ReLU(inplace=True), maxpool=pool
    )
    place = gates.attention.position
    inside, over = place == "inside-block", place == "over-stage"
    channels = iter(network.places(backbone.width)["inside-block"])  # of every block
    ends = gates.at("inside-block" if inside else "block-end")
    stage_gates = gates.at(place) if over or place == "stage-end" else iter(())
    for name, depth, strides in zip(network.stages, network.depths, (1, 2, 2, 2), strict=True):
        stage = GatedStage() if over else nn.Sequential()
        for stride in (strides, *(1,) * (depth - 1)):
            convolutions = _convolutions(network, inputs, next(channels), stride, backbone.stride)
            stage.append(Block(convolutions, stride, next(ends), inside=inside))
            inputs = convolutions[-1].out_channels
        if gate := next(stage_gates, None):
            stage.add_module("gate", gate)
        parts[name] = stage
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    parts["fc"] = nn.Linear(inputs, classes)
    return nn.Sequential(parts)


def _convolutions(
    network: Any, inputs: int, channels: Sequence[int], stride: int, version: str
) -> list[nn.Conv2d]:
    """Return a block's, with so many outputs: two of 3x3; a bottleneck's are 1x1, 3x3 and 1x1."""
    conv = partial(nn.Conv2d, bias=False)
    if not network.bottleneck:
        first, second = channels
        return [conv(inputs, first, 3, stride, padding=1), conv(first, second, 3, padding=1)]
    narrow, same, wide = channels
    strides = (stride, 1) if version == "v1" else (1, stride)
    return [
        conv(inputs, narrow, 1, strides[0]),
        conv(narrow, same, 3, strides[1], padding=1, groups=network.groups),
        conv(same, wide, 1),
    ]
