"""A detector as a study names it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.model import Model
from attention_ablation.networks.record import Named

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
