"""G-Ghost RegNetX (Han et al. 2022, arXiv:2201.03297)."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places, convolution

STEM, DROPOUT = 32, 0.2
INNER_SHARE, INNER_GROUP = 0.5, 0.75  # of the outer blocks' channels, at most; of their groups'


@dataclass(frozen=True, kw_only=True)
class GGhostRegNet(Network):
    """RegNetX whose stages of more than two blocks are Ghost stages; exact.

    A gate stands on a block's last convolution, before the shortcut. `width` scales a group's
    channels (48) and leaves the number of groups. `stem: cifar` takes the stride off its 3x3 stem.
    """

    family = "g-ghost-regnet"
    keys = frozenset({"stem"})
    stages = ("stage1", "stage2", "stage3", "stage4")
    grouped = True

    depths: tuple[int, int, int, int]
    groups: tuple[int, int, int, int]  # of a block's 3x3 convolution
    group: int  # a group's channels

    @property
    def convolutions(self) -> int:
        return 3 * sum(self.depths)

    def channels(self, width: float) -> list[tuple[int, int]]:
        """Return the channels of each stage's outer and inner blocks."""
        group, inner = self.group_channels(width)
        outers = [groups * group for groups in self.groups]
        return [(outer, int(outer * INNER_SHARE / inner) * inner) for outer in outers]

    def group_channels(self, width: float) -> tuple[int, int]:
        """Return a group's channels in outer and inner blocks."""
        group = int(self.group * width)
        return group, max(1, int(group * INNER_GROUP))

    def narrowest(self, width: float) -> int:
        return self.group_channels(width)[0]

    def places(self, width: float) -> Places:
        ends = []
        for depth, (outer, inner) in zip(self.depths, self.channels(width), strict=True):
            ends += [outer, *[inner] * (depth - 2), outer]
        return {"block-end": ends}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from torch import nn

        from attention_ablation.networks.g_ghost import GhostStage, RegNetBlock

        ends, group = gates.at("block-end"), self.group_channels(backbone.width)
        inputs = int(STEM * backbone.width)
        stem = convolution(3, inputs, stride=1 if backbone.stem == "cifar" else 2)
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        stages = zip(self.stages, self.depths, self.channels(backbone.width), strict=True)
        for name, depth, channels in stages:
            if depth > 2:
                parts[name] = GhostStage(inputs, channels, group, depth, ends)
            else:
                first = RegNetBlock(inputs, channels[0], group[0], next(ends), stride=2)
                last = RegNetBlock(channels[0], channels[0], group[0], next(ends))
                parts[name] = nn.Sequential(first, last)
            inputs = channels[0]
        parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        parts["dropout"], parts["fc"] = nn.Dropout(DROPOUT), nn.Linear(inputs, classes)
        return nn.Sequential(parts)


NETWORKS = {
    "g-ghost-regnetx-3.2": GGhostRegNet(depths=(2, 6, 15, 2), groups=(2, 4, 9, 21), group=48)
}
