"""ResNet, ResNeXt and WideResNet, by the names of the paper's Tables 4, 5 and 6.

wide-resnet50-2, whose bottlenecks are twice as wide inside (Zagoruyko and Komodakis,
arXiv:1605.07146), is torchvision's; exact.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

from attention_ablation.networks.network import Network, Places

STAGE_CHANNELS = (64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class ResNet(Network):
    """A residual network: blocks a stage, block type, groups, and the stages' widening."""

    family = "resnet"
    keys = frozenset({"stem"})
    stages = ("layer1", "layer2", "layer3", "layer4")

    depths: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    width_per_group: int = 64
    widen: float = 1.0

    @property
    def grouped(self) -> bool:  # type: ignore[override]
        return self.groups > 1

    @property
    def convolutions(self) -> int:
        return sum(self.depths) * (3 if self.bottleneck else 2)

    def planes(self, width: float) -> list[int]:
        """Return the channels of the four stages, before a bottleneck's expansion by 4."""
        return [int(channels * self.widen * width) for channels in STAGE_CHANNELS]

    def narrowest(self, width: float) -> int:
        return min(self.planes(width))

    def places(self, width: float) -> Places:
        stages = []  # the channels of a block's convolutions
        for planes in self.planes(width):
            inner = int(planes * self.width_per_group / 64) * self.groups
            stages.append([inner, inner, 4 * planes] if self.bottleneck else [planes, planes])
        blocks = [*chain(*([maps] * n for maps, n in zip(stages, self.depths, strict=True)))]
        outputs = [maps[-1] for maps in stages]
        sums = [[c] * n for c, n in zip(outputs, self.depths, strict=True)]
        return {
            "block-end": [maps[-1] for maps in blocks],
            "inside-block": blocks,
            "over-stage": sums,
            "stage-end": outputs[:-1],
        }

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.resnet import GatedResNet

        return GatedResNet(self, backbone, gates, classes)


NETWORKS = {
    "resnet18": ResNet(depths=(2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNet(depths=(3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNet(depths=(3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNet(depths=(3, 4, 23, 3), bottleneck=True),
    "wide-resnet18-1.5": ResNet(depths=(2, 2, 2, 2), bottleneck=False, widen=1.5),
    "wide-resnet18-2.0": ResNet(depths=(2, 2, 2, 2), bottleneck=False, widen=2.0),
    "wide-resnet50-2": ResNet(depths=(3, 4, 6, 3), bottleneck=True, width_per_group=128),
    "resnext50": ResNet(depths=(3, 4, 6, 3), bottleneck=True, groups=32, width_per_group=4),
    "resnext101": ResNet(depths=(3, 4, 23, 3), bottleneck=True, groups=32, width_per_group=4),
}
