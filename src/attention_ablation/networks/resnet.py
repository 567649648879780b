"""ResNet, ResNeXt and WideResNet (He et al. 2016, Xie et al. 2017), with places for gates.

Names and order of the modules are torchvision's, and so are weights files.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.gates.build import Gates
from attention_ablation.networks.record import Backbone

STEM_CHANNELS = 64


class Block(nn.Module):
    """A residual block: convolutions, the gate, then the shortcut. (N, C, H, W) -> (N, C', ...).

    channels: the outputs of its convolutions. groups: of the second one.
    """

    kernels: tuple[int, ...]
    relu_after: int  # the convolution after which torchvision lists the ReLU
    gate: nn.Module
    inside: bool  # whether the gate gets the maps of all convolutions

    def __init__(
        self, inputs: int, channels: Sequence[int], strides: Sequence[int], groups: int
    ) -> None:
        super().__init__()
        given, layers = inputs, zip(self.kernels, channels, strides, strict=False)
        for i, (kernel, outputs, stride) in enumerate(layers, 1):
            shared = groups if i == 2 else 1
            conv = nn.Conv2d(given, outputs, kernel, stride, kernel // 2, groups=shared, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
            if i == self.relu_after:
                self.relu = nn.ReLU(inplace=True)
            given = outputs
        self.downsample: nn.Module | None = None
        if max(strides) > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, max(strides), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    @property
    def last_norms(self) -> Sequence[Any]:
        return [getattr(self, f"bn{len(self.kernels)}")]

    def added(self, x: Tensor) -> Tensor:
        """Return the gated map with the shortcut added, before the last ReLU."""
        out, maps, last = x, [], len(self.kernels)
        for i in range(1, last + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = self.relu(out) if i < last else out
            if self.inside:
                maps.append(out)
        gated: Tensor = self.gate(maps if self.inside else out)
        return gated + (x if self.downsample is None else self.downsample(x))

    def forward(self, x: Tensor) -> Any:
        return self.relu(self.added(x))


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    kernels, relu_after = (3, 3), 1


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions."""

    kernels, relu_after = (1, 3, 1), 3


class GatedStage(nn.Sequential):
    """Blocks, and a gate that makes the stage's output of all their sums: (N, C, H, W) -> ..."""

    def forward(self, x: Tensor) -> Tensor:
        *blocks, gate = self
        sums = []
        for block in blocks:
            sums.append(block.added(x))  # type: ignore[operator]
            x = F.relu(sums[-1])  # not in place: the gate gets the sum
        return F.relu(gate(sums))


class GatedResNet(nn.Sequential):
    """A network with the backbone's width, stride and stem, and gates at any place."""

    def __init__(
        self,
        network: Any,
        backbone: Backbone,
        gates: Gates,
        classes: int,
        bottleneck: Callable[..., Block] = Bottleneck,
    ) -> None:
        """network: a record of families/resnet.py. bottleneck: makes its blocks of three."""
        super().__init__()
        channels = int(STEM_CHANNELS * backbone.width)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        if backbone.stem == "cifar":
            self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        make = bottleneck if network.bottleneck else BasicBlock
        late = network.bottleneck and backbone.stride == "v1.5"  # the second convolution strides
        place = gates.attention.position
        inside, over = place == "inside-block", place == "over-stage"
        block_channels = iter(network.places(backbone.width)["inside-block"])
        block_gates = gates.at("inside-block" if inside else "block-end")
        stage_gates = gates.at(place) if over or place == "stage-end" else iter(())
        for name, depth, first in zip(network.stages, network.depths, (1, 2, 2, 2), strict=True):
            stage = GatedStage() if over else nn.Sequential()
            for stride in (first, *[1] * (depth - 1)):
                strides = (1, stride, 1) if late else (stride, 1, 1)
                outputs = next(block_channels)
                block = make(channels, outputs, strides, network.groups)
                block.gate, block.inside = next(block_gates), inside
                stage.append(block)
                channels = outputs[-1]
            if gate := next(stage_gates, None):
                stage.add_module("gate", gate)
            self.add_module(name, stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        *features, classifier = self
        for part in features:
            x = part(x)
        logits: Tensor = classifier(x.flatten(1))
        return logits
