"""Res2Net (Gao et al. 2021, arXiv:1904.01169)."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from typing import Any

from attention_ablation.networks.network import Network, Places

STEM, STAGE_CHANNELS, EXPANSION = 64, (64, 128, 256, 512), 4


@dataclass(frozen=True, kw_only=True)
class Res2Net(Network):
    """A ResNet50 whose 3x3 convolutions are `scale` smaller ones, each fed by the one before.

    Stages and blocks are timm's, exact; a gate stands on a block's last convolution, before the
    shortcut. Its blocks stride in the 3x3 convolutions, whatever the backbone's `stride`. They
    start as our ResNet's do.
    """

    family = "res2net"
    keys = frozenset({"stem"})
    stages = ("layer1", "layer2", "layer3", "layer4")

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    base_width: int = 26
    scale: int = 4

    @property
    def convolutions(self) -> int:
        return sum(self.depths) * (1 + self.scale)

    def planes(self, width: float) -> list[int]:
        """Return the channels of the four stages, before the expansion by 4."""
        return [int(channels * width) for channels in STAGE_CHANNELS]

    def narrowest(self, width: float) -> int:
        return self.planes(width)[0] * self.base_width // 64

    def places(self, width: float) -> Places:
        pairs = zip(self.planes(width), self.depths, strict=True)
        return {"block-end": [*chain(*([EXPANSION * planes] * n for planes, n in pairs))]}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from timm.models.res2net import Bottle2neck
        from timm.models.resnet import make_blocks
        from torch import nn

        class Block(Bottle2neck):  # type: ignore[misc]
            """timm's block, which says where a residual branch ends."""

            @property
            def last_norms(self) -> list[Any]:
                return [self.bn3]

        stem, planes = int(STEM * backbone.width), self.planes(backbone.width)
        small = backbone.stem == "cifar"
        ends = gates.at("block-end")
        # timm.models.resnet.ResNet, whose stem has 64 channels at any width, calls this as well.
        stages, _ = make_blocks(
            [Block] * len(planes),
            planes,
            self.depths,
            stem,
            base_width=self.base_width,
            scale=self.scale,
            act_layer=nn.ReLU,
            norm_layer=nn.BatchNorm2d,
            attn_layer=lambda channels, **_: next(ends),
        )
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, stem, 3, padding=1, bias=False)
            if small
            else nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False),
            bn1=nn.BatchNorm2d(stem),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1),
            **dict(stages),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(EXPANSION * planes[-1], classes),
        )
        return nn.Sequential(parts)


NETWORKS = {"res2net50": Res2Net()}
