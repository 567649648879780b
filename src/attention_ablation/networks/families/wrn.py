"""The wide residual network of BigEarthNet (Papoutsis et al. 2021), with a gate in each block."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places

STEM = 16
# Channels of the three groups: 16, 32 and 64, times 2 * 1.8, to a multiple of 4.
WIDEN, MULTIPLE = 3.6, 4
GROUPS = (16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class WRN(Network):
    """WRN-10 of arXiv:2111.09451, the scaling phi = 1; with the gate `eca` it is WRN-ECA.

    conv3x3 to 16, BN, ReLU; three groups of one block, each followed by BN and ReLU; mean; linear.
    Block: gate(conv3x3 ReLU BN conv3x3 x) + conv1x1 x, strides 1, 2 and 2.

    Exact: its ECA has a bias (`options: {bias: true}`). The last map's mean is over all of it,
    where the authors' code pools 8x8 first, a stride's padding is symmetric, and BatchNorms start
    at 1, where theirs start within 0.05 of 0. Image: any.
    """

    family = "wrn"
    stages = ("group1", "group2", "group3")
    convolutions = 2 * len(GROUPS)

    def channels(self, width: float) -> list[int]:
        """Return the output channels of the three groups."""
        wide = [channels * WIDEN * width / MULTIPLE for channels in GROUPS]
        return [MULTIPLE * max(1, int(c + 0.5)) for c in wide]

    def narrowest(self, width: float) -> int:
        return int(STEM * width)

    def places(self, width: float) -> Places:
        return {"block-end": self.channels(width)}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.wrn import wide_residual_network

        width = backbone.width
        stem, groups = self.narrowest(width), self.channels(width)
        return wide_residual_network(stem, groups, gates.at("block-end"), classes)


NETWORKS = {"wrn-bigearthnet": WRN()}
