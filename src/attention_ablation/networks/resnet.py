"""ResNet, ResNeXt and WideResNet in torch: torchvision's classes with places for gates."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet

from attention_ablation.gates.build import Gates
from attention_ablation.networks.record import Backbone

STEM_CHANNELS = 64  # also where the stages are widened (WideResNet18, Table 4)


class Block(nn.Module):
    """A residual block: convolutions, the gate, then the shortcut. (N, C, H, W) -> (N, C', ...)."""

    convolutions: int
    gate: nn.Module
    inside: bool  # whether the gate gets the maps of all convolutions
    relu: nn.Module
    downsample: nn.Module | None

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


class BasicBlock(Block, resnet.BasicBlock):  # type: ignore[misc]
    """Two 3x3 convolutions."""

    convolutions = 2


class Bottleneck(Block, resnet.Bottleneck):  # type: ignore[misc]
    """1x1, 3x3 and 1x1 convolutions, the last one to four times the channels."""

    convolutions = 3


class GatedStage(nn.Sequential):
    """Blocks, and a gate that makes the stage's output of all their sums: (N, C, H, W) -> ..."""

    def forward(self, x: Tensor) -> Tensor:
        *blocks, gate = self
        sums = []
        for block in blocks:
            sums.append(block.added(x))  # type: ignore[operator]
            x = F.relu(sums[-1])  # not in place: the gate gets the sum
        return F.relu(gate(sums))


class GatedResNet(resnet.ResNet):  # type: ignore[misc]
    """torchvision's ResNet with the backbone's width, stride and stem, and gates at any place."""

    def __init__(self, network: Any, backbone: Backbone, gates: Gates, classes: int) -> None:
        """network: a record of families/resnet.py."""
        # Set before torchvision's constructor, which calls `_make_layer` below.
        self._stem = int(STEM_CHANNELS * backbone.width)
        self._planes = iter(network.planes(backbone.width))
        super().__init__(
            Bottleneck if network.bottleneck else BasicBlock,
            list(network.depths),
            num_classes=classes,
            groups=network.groups,
            width_per_group=network.width_per_group,
        )
        # The constructor fixes 64 channels for the stem and 512 for the last stage.
        self.conv1 = nn.Conv2d(3, self._stem, 7, stride=2, padding=3, bias=False)
        if backbone.stem == "cifar":
            self.conv1 = nn.Conv2d(3, self._stem, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(self._stem)
        blocks: list[Any] = [m for m in self.modules() if isinstance(m, Block)]
        place = gates.attention.position
        inside = place == "inside-block"
        ends = gates.at(place if inside else "block-end")
        for block, gate in zip(blocks, ends, strict=True):
            block.gate, block.inside = gate, inside
            if network.bottleneck and backbone.stride == "v1":
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        if place in ("over-stage", "stage-end"):
            for name, gate in zip(network.stages, gates.at(place), strict=False):
                if place == "over-stage":
                    setattr(self, name, GatedStage(*getattr(self, name)))
                getattr(self, name).add_module("gate", gate)
        self.fc = nn.Linear(blocks[-1].last_norm.num_features, classes)

    def _make_layer(
        self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> Any:
        if planes == STEM_CHANNELS:  # the first stage
            self.inplanes = self._stem
        return super()._make_layer(block, next(self._planes), blocks, stride, dilate)
