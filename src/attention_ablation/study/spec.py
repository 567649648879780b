"""A run's identity: everything that can change a result, and nothing that cannot.

Equal specs are one run, however many tables show it. Device, threads, workers, log interval and
output folder are never in a spec. A field added later defaults to None, which the canonical JSON
leaves out, so that the ids of runs already trained stay what they are.
"""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from attention_ablation.study.backbones import BACKBONES
from attention_ablation.study.model import Model, canonical_json, short_hash
from attention_ablation.study.recipes import ClassificationRecipe, DetectionRecipe


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
    norm: bool | None = Field(
        None,
        description="VGG only: BatchNorm after every convolution, which the paper's has not.",
    )
    stem: Literal["cifar"] | None = Field(
        None,
        description="'cifar': a first convolution of 3x3 with stride 1 and no pooling after it, "
        "for images of 32 px; null: the paper's.",
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone '{name}'; valid are: {', '.join(BACKBONES)}")
        return name


class Detector(Model):
    """A detector. Faster R-CNN has its gates in the backbone, the others before each classifier."""

    name: Literal["faster-rcnn", "ssd", "stairnet"]
    width: float = Field(1.0, gt=0, description="Factor on the channels of the detector's layers.")


class Spec(Model):
    """One classification training, apart from its seed."""

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


class DetectionSpec(Model):
    """One detection training, apart from its seed.

    `initial` is the classification training, of the same seed, whose weights the backbone starts
    from; the hash of it is part of this one's.
    """

    task: Literal["detection"] = "detection"
    backbone: Backbone
    attention: Attention
    detector: Detector
    recipe: DetectionRecipe
    initial: Spec | None = None

    def canonical(self) -> str:
        """Return the JSON that identifies the run: sorted keys, no spaces, no unset fields."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def run_id(self) -> str:
        """A readable slug and the first 10 hexadecimal digits of the spec's SHA-256."""
        name = f"{self.backbone.name}_{self.detector.name}_{self.attention.slug}"
        return f"{name}_{short_hash(self.canonical())}"


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
