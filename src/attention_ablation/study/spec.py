"""A run's identity: everything that can change a result, and nothing that cannot.

Equal specs are one run, however many tables show it. Device, threads, workers, log interval and
output folder are never in a spec. A field added later defaults to None, which the canonical JSON
leaves out, so that the ids of runs already trained stay what they are.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from attention_ablation.study.backbones import BACKBONES


class Model(BaseModel):
    """A strict record: unknown keys and wrong types are errors, and nothing changes it later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Attention(Model):
    """A gate: channel attention, spatial attention, and how the two are arranged.

    Keys without meaning for a gate (a kernel where there is no descriptor) are refused, and
    those left out are filled in, so that equal gates are equal records.
    """

    pooling: Literal["avg", "max", "avg&max"] | None = Field(
        None, description="Channel attention's pooling (paper 3, eq. 2); 'avg' alone is SE."
    )
    reduction: int | None = Field(None, ge=1, description="The shared MLP's reduction r; 16.")
    descriptor: Literal["pool", "conv1x1"] | None = Field(
        None,
        description="Spatial attention's input: max and mean over the channels, or a learned "
        "1x1 convolution (Table 2).",
    )
    kernel: int | None = Field(None, ge=1, description="Spatial attention's kernel size, odd; 7.")
    norm: bool | None = Field(
        None,
        description="BatchNorm after the spatial convolution, its weight starting at 0, as in the "
        "authors' code and not in the paper's formula; true.",
    )
    arrangement: Literal["channel-first", "spatial-first", "parallel"] | None = Field(
        None, description="Order of the two gates (Table 3); channel-first."
    )

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel so that the map keeps its size, got {kernel}")
        return kernel

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defaults: dict[str, Any] = {}
        if given.get("pooling"):
            defaults |= {"reduction": 16}
        if given.get("descriptor"):
            defaults |= {"kernel": 7, "norm": True}
        if given.get("pooling") and given.get("descriptor"):
            defaults |= {"arrangement": "channel-first"}
        return defaults | {key: value for key, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        needs = {
            "reduction": ("pooling", self.pooling),
            "kernel": ("descriptor", self.descriptor),
            "norm": ("descriptor", self.descriptor),
            "arrangement": ("pooling and descriptor", self.pooling and self.descriptor),
        }
        for key, (needed, present) in needs.items():
            if getattr(self, key) is not None and not present:
                raise ValueError(f"'{key}' has no meaning without {needed}; remove it")
        return self

    @property
    def slug(self) -> str:
        """A short name derived from the gate itself, in the manner of the paper's row labels."""
        channel = {None: "", "avg&max": "channel", "avg": "se", "max": "channel-max"}[self.pooling]
        spatial = f"spatial-{self.descriptor}-k{self.kernel}" if self.descriptor else ""
        parts = [part for part in (channel, spatial) if part]
        if self.arrangement == "spatial-first":
            parts.reverse()
        return ("-parallel-" if self.arrangement == "parallel" else "+").join(parts) or "none"


class Backbone(Model):
    """A network of `BACKBONES`, at full size unless a tier shrinks it."""

    name: str
    width: float = Field(1.0, gt=0, description="Factor on every layer's channels; 1 is the paper.")
    stride: Literal["v1", "v1.5"] = Field(
        "v1",
        description="Where a bottleneck strides: its first 1x1 convolution (v1, the paper's "
        "counts) or its 3x3 convolution (v1.5, the authors' released code).",
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone '{name}'; valid are: {', '.join(BACKBONES)}")
        return name


class ClutteredDigits(Model):
    """One whole handwritten digit among fragments of others; composed, nothing is downloaded."""

    name: Literal["cluttered-digits"]
    version: Literal[1] = Field(
        1, description="The way of composing; another one is another data set."
    )
    image_size: int = Field(ge=8, description="Side of the canvas, px.")
    digit_size: int = Field(ge=8, description="Side to which the 8x8 px digit is enlarged, px.")
    fragments: int = Field(ge=0, description="Fragments of other digits on each image.")
    train_images: int = Field(ge=1)
    validation_images: int = Field(ge=1)
    seed: int = Field(0, ge=0, description="Seed of the composition, apart from the runs' seeds.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.digit_size > self.image_size:
            raise ValueError(
                f"expected digit_size of at most image_size ({self.image_size}), "
                f"got {self.digit_size}"
            )
        return self

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @property
    def prepared(self) -> str:
        """Name of the file that holds the composed images, made once and read by every run."""
        return f"{self.name}_{short_hash(canonical_json(self.model_dump()))}.npz"


class ImageNet(Model):
    """ILSVRC 2012: 1,281,167 training and 50,000 validation images of 1,000 classes."""

    name: Literal["imagenet"]
    image_size: int = Field(224, ge=32, description="Side of the crop, px.")
    resize: int = Field(256, ge=32, description="Shorter side before the evaluation crop, px.")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 1000

    @property
    def train_images(self) -> int:
        """Images in the training split."""
        return 1_281_167

    @property
    def validation_images(self) -> int:
        """Images in the validation split."""
        return 50_000

    @property
    def prepared(self) -> None:
        """No file is composed: the images are read where they lie."""


Dataset = Annotated[ClutteredDigits | ImageNet, Field(discriminator="name")]


class StepSchedule(Model):
    """The learning rate is multiplied by `gamma` after every `every` epochs (the paper's)."""

    name: Literal["step"]
    every: int = Field(30, ge=1)
    gamma: Fraction = 0.1


class OneCycleSchedule(Model):
    """Up from lr/25 and down to lr/250,000, both as cosines, step by step (Smith 2018)."""

    name: Literal["one-cycle"]
    warmup: Fraction = Field(0.3, description="Share of all steps on the way up.")


class CosineSchedule(Model):
    """A linear warm-up from 0, then half a cosine down to 0, step by step."""

    name: Literal["cosine"]
    warmup_epochs: int = Field(0, ge=0)


Schedule = Annotated[StepSchedule | OneCycleSchedule | CosineSchedule, Field(discriminator="name")]


class ClassificationRecipe(Model):
    """Everything beside the network that changes a classification result."""

    dataset: Dataset
    augmentation: Literal["none", "crop-flip"] = Field(
        description="'crop-flip': RandomResizedCrop and horizontal flip, as on ImageNet."
    )
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="Images in a step, over all devices.")
    learning_rate: Positive
    momentum: Fraction = 0.9
    weight_decay: float = Field(ge=0, description="On all parameters, as in the paper.")
    label_smoothing: Fraction = 0.0
    schedule: Schedule
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    zero_init_residual: bool = Field(
        False,
        description="Start the last BatchNorm of each residual block at 0 (Goyal et al. 2017); "
        "the authors' code does not, and short trainings of deep networks need it.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.augmentation != "none" and self.dataset.name == "cluttered-digits":
            raise ValueError(
                f"expected augmentation 'none' for cluttered-digits, got '{self.augmentation}': "
                "flips and crops change what a digit is"
            )
        warmup = getattr(self.schedule, "warmup_epochs", 0)
        if warmup >= self.epochs:
            raise ValueError(f"expected schedule.warmup_epochs below {self.epochs}, got {warmup}")
        if self.dataset.train_images < self.batch_size:
            raise ValueError(
                f"expected a batch_size of at most dataset.train_images "
                f"({self.dataset.train_images}), got {self.batch_size}"
            )
        return self

    @property
    def steps(self) -> int:
        """Steps of the whole training; a last batch that is not full is left out."""
        return self.epochs * (self.dataset.train_images // self.batch_size)


class Spec(Model):
    """One training, apart from its seed."""

    task: Literal["classification"] = "classification"
    backbone: Backbone
    attention: Attention
    recipe: ClassificationRecipe

    def canonical(self) -> str:
        """Return the JSON that identifies the run: sorted keys, no spaces, no unset fields."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def run_id(self) -> str:
        """A readable slug and the first 10 hexadecimal digits of the spec's SHA-256."""
        return f"{self.backbone.name}_{self.attention.slug}_{short_hash(self.canonical())}"


class Run(Model):
    """One training: a spec and a seed. It is what a run folder's `spec.json` holds."""

    seed: int = Field(ge=0, description="Seeds initial weights and data order.")
    spec: Spec

    def canonical(self) -> str:
        """Return the run as JSON with sorted keys and no spaces."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def path(self) -> str:
        """The run's folder below `results/<tier>/runs`."""
        return f"{self.spec.run_id}/seed-{self.seed}"


def canonical_json(data: Any) -> str:
    """Return `data` as JSON with sorted keys and without spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def short_hash(text: str) -> str:
    """Return the first 10 hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
