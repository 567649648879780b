"""MobileNet v1 (Howard et al. 2017) with its width multiplier alpha."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places, convolution, pooled

STEM = 32
# Output channels and stride of the 13 depthwise separable blocks (Table 1).
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


@dataclass(frozen=True, kw_only=True)
class MobileNet(Network):
    """A stem and 13 depthwise separable blocks; a gate follows each of the 27 convolutions.

    The gates' number follows from the parameters in the paper's Table 5.
    """

    family = "mobilenet"
    keys = frozenset({"stem"})
    # The gates of the pointwise convolutions.
    stages = tuple(f"features.{2 * i}" for i in range(1, len(BLOCKS) + 1))
    convolutions = 1 + 2 * len(BLOCKS)

    alpha: float = 1.0

    def channels(self, width: float) -> list[int]:
        """Return the channels after the stem and after each block."""
        return [int(c * (self.alpha * width)) for c in (STEM, *(outputs for outputs, _ in BLOCKS))]

    def narrowest(self, width: float) -> int:
        return self.channels(width)[0]

    def places(self, width: float) -> Places:
        stem, *blocks = self.channels(width)
        pairs = zip([stem, *blocks], blocks, strict=False)
        return {"block-end": [stem, *(channels for pair in pairs for channels in pair)]}

    def taps(self, width: float) -> dict[str, int]:
        """Return the pointwise convolutions of the 11th and the 13th block."""
        return {f"{2 * block}": self.channels(width)[block] for block in (11, 13)}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from torch import nn

        ends = gates.at("block-end")
        inputs, *blocks = self.channels(backbone.width)
        stem = convolution(3, inputs, stride=1 if backbone.stem == "cifar" else 2)
        layers = [stem.append(next(ends))]
        for outputs, (_, stride) in zip(blocks, BLOCKS, strict=True):
            depthwise = convolution(inputs, inputs, stride=stride, groups=inputs)
            layers.append(depthwise.append(next(ends)))
            layers.append(convolution(inputs, outputs, 1).append(next(ends)))
            inputs = outputs
        return pooled(nn.Sequential(*layers), inputs, classes)


NETWORKS = {"mobilenet": MobileNet(), "mobilenet-0.7": MobileNet(alpha=0.7)}
