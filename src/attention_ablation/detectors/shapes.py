"""The detectors as plain data: which backbones they stand on, and their layers' channels."""

from dataclasses import dataclass

from attention_ablation.base.errors import UserError
from attention_ablation.detectors.record import Detector
from attention_ablation.networks.record import Backbone
from attention_ablation.networks.shapes import (
    BACKBONES,
    MOBILENET_BLOCKS,
    VGG_CONNECTED,
    VGG_STAGES,
    MobileNetShape,
    ResNetShape,
    VGGShape,
)

# Aspect ratios beside 1 on each of the six maps. Each ratio gives a wide and a tall box, and 1
# gives two sizes: 6, 6, 6, 6, 4 and 4 boxes a cell.
RATIOS = ((2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
RPN_CHANNELS = 512  # Faster R-CNN's 3x3 convolution before the two of the proposals


@dataclass(frozen=True, kw_only=True)
class SingleShotShape:
    """SSD and StairNet on one kind of backbone: two of its maps and four extra ones.

    Args:
        taps: the children of the backbone's `features` whose outputs are the first two maps.
        tap_channels: channels of the two at full width.
        rescale: L2Norm on the first map (Liu et al. 2016, 3.1).
        extras: (1x1 convolution's channels, 3x3 convolution's channels, stride) of each extra map.
        scales: sides of the square default boxes on each map over the image's, and one more for
            the second square of the last map.
        steps: distance of the cells at 300 px, px; None spreads them evenly, as every other image
            size does.
        kernel: of the class and box convolutions.
        stair: channels of StairNet's six levels.
        light: StairNet's levels are pointwise and depthwise convolutions.
    """

    taps: tuple[str, str]
    tap_channels: tuple[int, int]
    rescale: bool
    extras: tuple[tuple[int, int, int], ...]
    scales: tuple[float, ...]
    steps: tuple[int, ...] | None
    kernel: int
    stair: int
    light: bool


SINGLE_SHOT = {
    # Liu et al. 2016: 30, 60, 111, 162, 213, 264 and 315 px of 300.
    VGGShape: SingleShotShape(
        taps=("conv4_3", "conv7"),
        tap_channels=(VGG_STAGES[3][-1], VGG_CONNECTED),
        rescale=True,
        extras=((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1)),
        scales=(0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
        steps=(8, 16, 32, 64, 100, 300),
        kernel=3,
        stair=256,
        light=False,
    ),
    # The paper does not give the boxes on MobileNet. Equation 4 of Liu et al. with scales from 0.2
    # to 0.95, as public MobileNet SSDs have it: 60, 105, 150, 195, 240, 285 and 300 px of 300. The
    # taps are the pointwise convolutions of the 11th and the 13th block.
    MobileNetShape: SingleShotShape(
        taps=("22", "26"),
        tap_channels=(MOBILENET_BLOCKS[10][0], MOBILENET_BLOCKS[12][0]),
        rescale=False,
        extras=((256, 512, 2), (128, 256, 2), (128, 256, 2), (64, 128, 2)),
        scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
        steps=None,
        kernel=1,
        stair=128,
        light=True,
    ),
}


def gates_in_backbone(detector: Detector) -> bool:
    """Whether the gates are in the backbone (Table 6), not before every classifier (Table 7)."""
    return detector.name == "faster-rcnn"


def single_shot(backbone: Backbone) -> SingleShotShape:
    """Return SSD's and StairNet's layers on a backbone that `check_detector` lets pass."""
    return SINGLE_SHOT[type(BACKBONES[backbone.name])]


def source_channels(detector: Detector, backbone: Backbone) -> list[int]:
    """Return the channels of the six maps of SSD and StairNet, the finest first."""
    shape, network = single_shot(backbone), BACKBONES[backbone.name]
    width = backbone.width * getattr(network, "alpha", 1.0)
    taps = [int(channels * width) for channels in shape.tap_channels]
    return taps + [int(outputs * detector.width) for _, outputs, _ in shape.extras]


def gated_channels(detector: Detector, backbone: Backbone) -> list[int]:
    """Return the channels at every gate: in Faster R-CNN's backbone, else before a classifier."""
    if gates_in_backbone(detector):
        return BACKBONES[backbone.name].gated_channels(backbone.width)
    sources = source_channels(detector, backbone)
    if detector.name == "ssd":
        return sources
    return [int(single_shot(backbone).stair * detector.width)] * len(sources)


def check_detector(detector: Detector, backbone: Backbone, where: object) -> None:
    """Raise UserError where a detector does not stand on a backbone, or has an empty layer."""
    residual = isinstance(BACKBONES[backbone.name], ResNetShape)
    if residual != (detector.name == "faster-rcnn"):
        kind = ResNetShape if detector.name == "faster-rcnn" else (VGGShape, MobileNetShape)
        valid = [name for name, shape in BACKBONES.items() if isinstance(shape, kind)]
        raise UserError(
            f"{where}: expected a backbone of {detector.name} among {', '.join(valid)}, got "
            f"'{backbone.name}'."
        )
    if residual:
        fewest = int(RPN_CHANNELS * detector.width)
    else:
        extras = single_shot(backbone).extras
        fewest = int(min(channels for extra in extras for channels in extra[:2]) * detector.width)
    if fewest < 1:
        raise UserError(
            f"{where}: expected a detector width that leaves {detector.name} a channel everywhere, "
            f"got {detector.width:g}; raise it."
        )
