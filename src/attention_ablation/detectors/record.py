"""A detector as a study names it: the backbones it stands on, its gates, its layers' channels."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.errors import UserError
from attention_ablation.base.model import Model
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import BACKBONES, Backbone, Named

RPN_CHANNELS = 512  # Faster R-CNN's 3x3 convolution before the two of the proposals
DetectorName = Literal["faster-rcnn", "ssd", "stairnet"]


class DetectorSize(Model):
    """The size of a detector's own layers, which a tier chooses."""

    width: float = Field(1.0, gt=0, description="Factor on the channels of the detector's layers.")
    regions: int | None = Field(
        None,
        ge=1,
        description="Faster R-CNN only: regions of an image that a training step samples; null: "
        "the protocol's 256.",
    )
    proposals: int | None = Field(
        None,
        ge=1,
        description="Faster R-CNN only: regions of an image that an evaluation classifies; null: "
        "the protocol's 300.",
    )
    crop: int | None = Field(
        None,
        ge=2,
        multiple_of=2,
        description="Faster R-CNN only: samples on a side of a region, pooled to half as many; "
        "null: the protocol's 14.",
    )


class Detector(DetectorSize, Named):
    """A detector. Faster R-CNN has its gates in the backbone, the others before each classifier."""

    name: DetectorName

    @model_validator(mode="after")
    def _regions_are_faster_rcnns(self) -> Self:
        for key in ("regions", "proposals", "crop"):
            if getattr(self, key) is not None and self.name != "faster-rcnn":
                raise ValueError(f"'{key}' has no meaning for {self.name}; remove it")
        return self


@dataclass(frozen=True, kw_only=True)
class SingleShotLayout:
    """SSD and StairNet on one family of networks: two of its maps (`taps`) and four extra ones.

    Args:
        rescale: L2Norm on the first map (Liu et al. 2016, 3.1).
        extras: (1x1 convolution's channels, 3x3 convolution's channels, stride) of each extra map.
        scales: sides of the square default boxes on each map over the image's, and one more for
            the second square of the last map.
        steps: distance of the cells at 300 px, px; None, as at any other size: spread evenly.
        kernel: of the class and box convolutions, and of those of StairNet's levels; with 1 their
            enlargements are depthwise.
        stair: channels of StairNet's six levels.
    """

    rescale: bool
    extras: tuple[tuple[int, int, int], ...]
    scales: tuple[float, ...]
    steps: tuple[int, ...] | None
    kernel: int
    stair: int


LAYOUTS = {
    # Liu et al. 2016: 30, 60, 111, 162, 213, 264 and 315 px of 300.
    "vgg": SingleShotLayout(
        rescale=True,
        extras=((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1)),
        scales=(0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
        steps=(8, 16, 32, 64, 100, 300),
        kernel=3,
        stair=256,
    ),
    # Of the boxes on MobileNet the paper says nothing. Equation 4 of Liu et al. with 0.2 to 0.95,
    # as public MobileNet SSDs have it: 60, 105, 150, 195, 240, 285 and 300 px of 300.
    "mobilenet": SingleShotLayout(
        rescale=False,
        extras=((256, 512, 2), (128, 256, 2), (128, 256, 2), (64, 128, 2)),
        scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
        steps=None,
        kernel=1,
        stair=128,
    ),
}


def gates_in_backbone(detector: Detector) -> bool:
    """Whether the gates are in the backbone (Table 6), not before every classifier (Table 7)."""
    return detector.name == "faster-rcnn"


def source_channels(detector: Detector, backbone: Backbone) -> list[int]:
    """Return the channels of the six maps of SSD and StairNet, the finest first."""
    extras = LAYOUTS[backbone.network.family].extras
    taps = backbone.network.taps(backbone.width).values()
    return [*taps, *(int(outputs * detector.width) for _, outputs, _ in extras)]


def gated_channels(detector: Detector, backbone: Backbone) -> list[int]:
    """Return the channels at the gates of SSD and StairNet, one before each classifier."""
    if detector.name == "ssd":
        return source_channels(detector, backbone)
    return [int(LAYOUTS[backbone.network.family].stair * detector.width)] * 6


def check_detector(detector: Detector, backbone: Backbone, where: object) -> None:
    """Raise UserError where a detector does not stand on a backbone, or has an empty layer."""
    families = {"resnet"} if detector.name == "faster-rcnn" else set(LAYOUTS)
    if backbone.network.family not in families:
        valid = [name for name, network in BACKBONES.items() if network.family in families]
        raise UserError(
            f"{where}: expected a backbone of {detector.name} among {', '.join(valid)}, got "
            f"'{backbone.name}'."
        )
    least = RPN_CHANNELS
    if detector.name != "faster-rcnn":
        extras = LAYOUTS[backbone.network.family].extras
        least = min(channels for extra in extras for channels in extra[:2])
    if int(least * detector.width) < 1:
        raise UserError(
            f"{where}: expected a detector width that leaves {detector.name} a channel everywhere, "
            f"got {detector.width:g}; raise it."
        )


def check_fit(
    attention: Attention, backbone: Backbone, where: object, detector: Detector | None = None
) -> None:
    """Raise UserError where a network or detector has no channel somewhere, or no such place."""
    name, width = backbone.name, backbone.width
    if backbone.narrowest < 1:
        raise UserError(
            f"{where}: expected a width that leaves {name} a channel everywhere, got {width:g}; "
            "raise it."
        )
    places = dict(backbone.places)
    if detector is not None:
        check_detector(detector, backbone, where)
        name = f"{detector.name} on {name}"
        if not gates_in_backbone(detector):
            width = detector.width
            places = {"block-end": gated_channels(detector, backbone)}
    if attention == Attention():
        return
    if not places:
        raise UserError(
            f"{where}: expected no attention in {name}, which has no gates, got "
            f"'{attention.slug}'; take 'none' or another backbone."
        )
    if attention.position not in places:
        raise UserError(
            f"{where}: expected a gate that stands at {' or '.join(places)}, the places of {name}, "
            f"got '{attention.slug}', which stands at {attention.position}; take another backbone."
        )
    gates = places[attention.position]
    fewest = min(channels if isinstance(channels, int) else channels[-1] for channels in gates)
    if attention.ratio is not None and attention.ratio > fewest:
        raise UserError(
            f"{where}: expected a reduction of at most {fewest}, the fewest channels at a gate of "
            f"{name} at width {width:g}, got {attention.ratio}; lower the reduction or raise the "
            "width."
        )
