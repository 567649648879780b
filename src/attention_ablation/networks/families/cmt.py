"""CMT (Guo et al. 2022): convolutions and self-attention in each block."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.base.errors import UserError
from attention_ablation.networks.network import Network, Places

HEADS = (1, 2, 4, 8)  # of the four stages, whose channels grow with them
REDUCTIONS = (8, 4, 2, 1)  # of the keys' and values' map, a side
STRIDE = 32  # of the last map


@dataclass(frozen=True, kw_only=True)
class CMT(Network):
    """The tiny CMT of arXiv:2107.06263, a transformer with convolutions; it has no gates.

    Block: x + DW3x3 x, then x + attention(LN(x)), then x + FFN(LN(x)). Attention's keys and values
    are of a map that a depthwise convolution has made smaller; a stage has one table of positions,
    (heads, HW, HW / k^2), that its blocks add to the logits.

    Exact, without dropout and stochastic depth. The tables, and so the parameters, depend on the
    image, a multiple of 32 px; at 32 px every place attends to a single key.
    """

    family = "cmt"
    stages = ("stage1", "stage2", "stage3", "stage4", "last")
    own_init = True
    grouped = True

    per_head: int = 46
    depths: tuple[int, ...] = (2, 2, 10, 2)
    stem: int = 16
    ratio: float = 3.6
    features: int = 1280

    @property
    def convolutions(self) -> int:
        # Of a block: a depthwise one, attention's four linear layers and one that reduces, FFN's 3.
        return 9 * sum(self.depths)

    def narrowest(self, width: float) -> int:
        return int(self.stem * width)

    def places(self, width: float) -> Places:
        return {}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.cmt import CMTNet

        if image_size < 1 or image_size % STRIDE:
            raise UserError(
                f"{backbone.name}: expected images whose side is a multiple of {STRIDE} px, as its "
                f"tables of positions need, got {image_size} px; choose another image size."
            )
        channels = [int(self.per_head * backbone.width) * heads for heads in HEADS]
        stem, features = (int(c * backbone.width) for c in (self.stem, self.features))
        return CMTNet(
            *(stem, channels, self.depths, HEADS, REDUCTIONS, self.ratio),
            features=features,
            classes=classes,
            image_size=image_size,
        )


NETWORKS = {"cmt-ti": CMT()}
