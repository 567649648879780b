"""Residual Attention Network (Wang et al. 2017), with a gate in each of its residual units."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places

STEM = 64
# The depth of each stage's mask branch; the last stage has three units and no mask.
DEPTHS = (3, 2, 1, 0)
EXPANSION = 4  # a unit's output channels by those of its 3x3 convolution


@dataclass(frozen=True, kw_only=True)
class ResAttNet(Network):
    """Attention-56 of arXiv:1704.06904, whose attention is its own: a mask branch beside a trunk.

    A stage is a unit that strides, and an attention module: unit, H = (1 + M) T, unit. T is two
    units; M the sigmoid of a bottom-up, top-down branch (`networks.resattnet`). Units are
    bottlenecks with BatchNorm and ReLU before each convolution.

    Exact: equal to pytorchcv's resattnet56, with the mean of the last map whatever its size. A gate
    stands on each unit's residual, those of the mask branches included. Image: 32 px or more.
    """

    family = "resattnet"
    stages = ("stage1", "stage2", "stage3", "stage4")

    def units(self) -> list[int]:
        """Return the residual units of each stage."""
        # Of a module: first, trunk of 2, last; a mask's 2 a depth and the skips between.
        return [3 if depth == 0 else 1 + 4 + 2 * depth + depth - 1 for depth in DEPTHS]

    @property
    def convolutions(self) -> int:
        return 3 * sum(self.units()) + 2 * sum(depth > 0 for depth in DEPTHS)

    def channels(self, width: float) -> list[int]:
        """Return the output channels of the four stages."""
        return [EXPANSION * 2**i * self.narrowest(width) for i in range(len(DEPTHS))]

    def narrowest(self, width: float) -> int:
        return int(STEM * width)

    def places(self, width: float) -> Places:
        pairs = zip(self.channels(width), self.units(), strict=True)
        return {"block-end": [channels for channels, units in pairs for _ in range(units)]}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.resattnet import residual_attention_network

        width = backbone.width
        stem, stages = self.narrowest(width), self.channels(width)
        return residual_attention_network(stem, stages, DEPTHS, gates.at("block-end"), classes)


NETWORKS = {"resattnet56": ResAttNet()}
