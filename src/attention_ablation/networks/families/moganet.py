"""MogaNet (Li et al. 2024): multi-order gated aggregation, a network of convolutions."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places

GROUPS = 8  # a block splits its channels into 1/8, 3/8 and 4/8


@dataclass(frozen=True, kw_only=True)
class MogaNet(Network):
    """The tiny MogaNet of arXiv:2211.03295, whose attention is its own; it has no gates.

    Block, i = BN(x): x + l1 (conv1x1(SiLU(G p) * SiLU(V p)) + i), then x + l2 conv1x1(A y), y the
    activated DW3x3 of conv1x1 BN(x). V are depthwise convolutions of three orders; p and A stress
    what differs from the mean over places, or from one map of all channels.

    Exact, without stochastic depth. Channels are multiples of 8. Image: 32 px or more.
    """

    family = "moganet"
    stages = ("stage1", "stage2", "stage3", "stage4")
    own_init = True
    grouped = True

    outputs: tuple[int, ...] = (32, 64, 128, 256)
    depths: tuple[int, ...] = (3, 3, 12, 2)
    ratios: tuple[int, ...] = (8, 8, 4, 4)

    @property
    def convolutions(self) -> int:
        return 11 * sum(self.depths)

    def channels(self, width: float) -> list[int]:
        """Return the channels of the four stages."""
        return [GROUPS * int(channels * width / GROUPS) for channels in self.outputs]

    def narrowest(self, width: float) -> int:
        return self.channels(width)[0]

    def places(self, width: float) -> Places:
        return {}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.moganet import moganet

        return moganet(self.channels(backbone.width), self.depths, self.ratios, classes)


NETWORKS = {"moganet-t": MogaNet()}
