"""Metrics: what tables, claims and figures show and compare; a study may add some of its own."""

from typing import Any, Literal

from pydantic import Field

from attention_ablation.base.model import Line, Model

SIZES = ("params_m", "gflops")  # of the full-size network: exact, the same for every seed
# What is counted on the full-size network, and what it is.
COUNTED = {
    "params_m": "parameters, in millions",
    "gflops": "multiply-accumulates of convolutions and linear layers for one image, in 1e9",
    "starting_gain": "what is left of standard normal noise F behind an untrained gate, "
    "<F, gate(F)> / <F, F>, the mean over all gates",
    "time_over_bare": "time of a training step over one without a gate, from the study's times",
}
# Numbers of finished runs, as runs.csv names them.
RUN_NUMBERS = (
    *("validation_top1_error", "validation_top5_error", "validation_loss"),
    *("validation_map_50", "validation_map_75", "validation_map"),
    *("train_loss", "train_top1_error", "train_top5_error"),
    *("train_loss_objectness", "train_loss_rpn_box_reg", "train_loss_classifier"),
    *("train_loss_box_reg", "train_loss_classification", "train_loss_bbox_regression"),
    *("images_per_second", "seconds", "compute_seconds", "startup_seconds"),
    *("peak_memory_mb", "peak_device_memory_mb", "joules"),
    *("gradcam_energy_in_box", "gradcam_hit_rate", "gradcam_iou", "gradcam_target_probability"),
)
# Columns of rows.csv and of tables' CSVs that are no metric.
RESERVED = (
    *("table", "row", "label", "backbone", "front_end", "detector", "attention", "times", "seeds"),
    *("source", "protocol"),
)


class Metric(Model):
    """A number of every row: its heading, how it is written and compared, and where it is from."""

    heading: Line = Field(description="What tables call it, without the unit.")
    unit: Line | None = Field(None, description="Such as '%'; null: none.")
    better: Literal["lower", "higher"] = Field("lower", description="Which values are better.")
    digits: int | None = Field(
        None,
        ge=0,
        le=9,
        description="Digits after the point; null: as many as an error of the tier's validation "
        "set has, 2 from 10,000 images and 1 below.",
    )
    source: str = Field(
        description="A number of a run as runs.csv names it, such as validation_loss or "
        "images_per_second; or of the full-size network: params_m, gflops, starting_gain, or "
        "time_over_bare where the study has times."
    )

    @property
    def title(self) -> str:
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def counted(self) -> bool:
        """Whether it is counted on the full-size network, whatever the tier."""
        return self.source in COUNTED

    @property
    def suffix(self) -> str:
        """What stands behind a value in a sentence."""
        return f" {self.unit}" if self.unit else ""

    @property
    def points(self) -> str:
        """What stands behind a difference of two values in a sentence."""
        return " points" if self.unit == "%" else self.suffix


MAP: dict[str, Any] = {"unit": "%", "better": "higher", "digits": 1}  # one, as papers print it
SHARE: dict[str, Any] = {"better": "higher", "digits": 3}
# In the order of columns in a CSV.
METRICS = {
    "params_m": Metric(heading="Params", source="params_m", unit="M", digits=2),
    "gflops": Metric(heading="GFLOPs", source="gflops", digits=3),
    "top1_error": Metric(heading="Top-1 error", source="validation_top1_error", unit="%"),
    "top5_error": Metric(heading="Top-5 error", source="validation_top5_error", unit="%"),
    "map_50": Metric(heading="mAP@.5", source="validation_map_50", **MAP),
    "map_75": Metric(heading="mAP@.75", source="validation_map_75", **MAP),
    "map": Metric(heading="mAP@[.5, .95]", source="validation_map", **MAP),
    "train_top1_error": Metric(heading="Training top-1 error", source="train_top1_error", unit="%"),
    "starting_gain": Metric(heading="Starting gain", source="starting_gain", digits=2),
    "time_over_bare": Metric(heading="Time over no gate", source="time_over_bare", digits=2),
    "gradcam_energy_in_box": Metric(
        heading="Grad-CAM energy in the box", source="gradcam_energy_in_box", **SHARE
    ),
    "gradcam_target_probability": Metric(
        heading="Target's probability", source="gradcam_target_probability", **SHARE
    ),
}


class CountSize(Model):
    """Classes, without the background, and image size that a network is counted with."""

    classes: int = Field(ge=1)
    image_size: int = Field(ge=1, description="px; of Faster R-CNN the shorter side.")

    @property
    def text(self) -> str:
        return f"{self.image_size} px, {self.classes} classes"


class CountedOn(CountSize):
    """What networks of full size are counted on, whatever the tier: the paper's data sets."""

    classes: int = Field(1000, ge=1)
    image_size: int = Field(224, ge=1, description="px")
    detectors: dict[str, CountSize] = Field(
        default_factory=dict, description="By detector; every detector of a row has an entry."
    )

    def size(self, detector: str | None) -> CountSize:
        """Return a detector's, or classification's."""
        return self if detector is None else self.detectors[detector]
