"""The backbones as plain data, so that planning can reason about them without torch.

The names follow the paper's Tables 4, 5 and 7. `models.build` turns an entry into a network.
"""

from dataclasses import dataclass

STAGE_CHANNELS = (64, 128, 256, 512)
# Output channels of MobileNet's stem and of its 13 depthwise separable blocks, with each
# block's stride (Howard et al. 2017, Table 1).
MOBILENET_STEM = 32
MOBILENET_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# Channels of VGG16's convolutions, stage by stage (Simonyan and Zisserman 2015, Table 1, D), and
# of the two that stand for its fully connected layers (Chen et al. 2015; Liu et al. 2016).
VGG_STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
VGG_CONNECTED = 1024


@dataclass(frozen=True, kw_only=True)
class ResNetShape:
    """A residual network: blocks a stage, block type, groups, and the stages' widening."""

    depths: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    width_per_group: int = 64
    widen: float = 1.0

    @property
    def expansion(self) -> int:
        """Output channels of a block over its stage's channels."""
        return 4 if self.bottleneck else 1

    @property
    def convolutions(self) -> int:
        """Convolutions in the blocks."""
        return sum(self.depths) * (3 if self.bottleneck else 2)

    def stage_channels(self, width: float) -> list[int]:
        """Channels of the four stages, before the bottleneck's expansion."""
        return [int(channels * self.widen * width) for channels in STAGE_CHANNELS]

    def narrowest(self, width: float) -> int:
        """Channels where there are fewest."""
        return min(self.stage_channels(width))

    def gated_channels(self, width: float) -> list[int]:
        """Channels at every gate: one gate on each residual block's output."""
        return [
            channels * self.expansion
            for channels, depth in zip(self.stage_channels(width), self.depths, strict=True)
            for _ in range(depth)
        ]


@dataclass(frozen=True, kw_only=True)
class MobileNetShape:
    """MobileNet v1 with its width multiplier alpha."""

    alpha: float = 1.0

    @property
    def convolutions(self) -> int:
        """The stem, and two in each block."""
        return 1 + 2 * len(MOBILENET_BLOCKS)

    def narrowest(self, width: float) -> int:
        """Channels where there are fewest."""
        return int(MOBILENET_STEM * self.alpha * width)

    def gated_channels(self, width: float) -> list[int]:
        """Channels at every gate: after the stem and after both convolutions of each block."""
        scale = self.alpha * width
        channels = [int(MOBILENET_STEM * scale)]
        for out, _ in MOBILENET_BLOCKS:
            channels += [channels[-1], int(out * scale)]
        return channels


@dataclass(frozen=True, kw_only=True)
class VGGShape:
    """The reduced VGG16 that detectors stand on; Table 7 gives it no gate of its own."""

    @property
    def convolutions(self) -> int:
        """13 of VGG16, and conv6 and conv7."""
        return sum(map(len, VGG_STAGES)) + 2

    def narrowest(self, width: float) -> int:
        """Channels where there are fewest."""
        return int(VGG_STAGES[0][0] * width)

    def gated_channels(self, width: float) -> list[int]:
        """Channels at every gate: there is none."""
        return []


BACKBONES: dict[str, ResNetShape | MobileNetShape | VGGShape] = {
    "resnet18": ResNetShape(depths=(2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetShape(depths=(3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetShape(depths=(3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetShape(depths=(3, 4, 23, 3), bottleneck=True),
    "wide-resnet18-1.5": ResNetShape(depths=(2, 2, 2, 2), bottleneck=False, widen=1.5),
    "wide-resnet18-2.0": ResNetShape(depths=(2, 2, 2, 2), bottleneck=False, widen=2.0),
    "resnext50": ResNetShape(depths=(3, 4, 6, 3), bottleneck=True, groups=32, width_per_group=4),
    "resnext101": ResNetShape(depths=(3, 4, 23, 3), bottleneck=True, groups=32, width_per_group=4),
    "mobilenet": MobileNetShape(),
    "mobilenet-0.7": MobileNetShape(alpha=0.7),
    "vgg16": VGGShape(),
}
