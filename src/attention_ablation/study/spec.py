"""A run's identity: everything that can change a result, and nothing that cannot.

Equal specs are one run, however many tables show it. Device, threads, workers, log interval and
output folder are never in a spec. A field added later defaults to None, which the canonical JSON
leaves out, so that the ids of runs already trained stay what they are.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from attention_ablation.study.backbones import BACKBONES, VGGShape
from attention_ablation.study.model import Model, Seed, canonical_json, short_hash
from attention_ablation.study.recipes import ClassificationRecipe, DetectionRecipe


class Attention(Model):
    """A gate: channel attention, spatial attention, and how the two are arranged; or a user's own.

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
    module: str | None = Field(
        None,
        description="A gate of your own, instead of all that: 'my_module.py:MyGate', a file in the "
        "project's folder and the class in it.",
    )
    options: dict[str, JsonValue] | None = Field(
        None, description="module: what the class is made with beside the channels."
    )
    module_sha256: str | None = Field(
        None,
        description="module: SHA-256 of the file, filled in; where it is given the file is held "
        "to it.",
    )

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel so that the map keeps its size, got {kernel}")
        return kernel

    @field_validator("module")
    @classmethod
    def _file_and_class(cls, module: str | None) -> str | None:
        if module is None:
            return None
        path, _, name = module.partition(":")
        if not re.fullmatch(r"[\w./-]+\.py", path) or not (name.isascii() and name.isidentifier()):
            raise ValueError(
                f"expected a file and a class in it, such as my_module.py:MyGate, got '{module}'"
            )
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(
                f"expected a path from the project's folder and inside of it, because it is part "
                f"of the run's identity, got '{path}'"
            )
        return module

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defaults: dict[str, Any] = {}
        if given.get("module"):
            defaults |= {"options": {}}
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
            "options": ("module", self.module),
            "module_sha256": ("module", self.module),
        }
        for key, (needed, present) in needs.items():
            if getattr(self, key) is not None and not present:
                raise ValueError(f"'{key}' has no meaning without {needed}; remove it")
        for key in ("pooling", "descriptor"):
            if self.module and getattr(self, key):
                raise ValueError(
                    f"'{key}' has no meaning beside module, a gate by itself; remove it"
                )
        return self

    @property
    def module_file(self) -> str | None:
        """The file of a user's own gate, from the project's folder."""
        return self.module.partition(":")[0] if self.module else None

    @property
    def module_class(self) -> str | None:
        """The class of a user's own gate."""
        return self.module.partition(":")[2] if self.module else None

    @property
    def slug(self) -> str:
        """A short name derived from the gate itself, in the manner of the paper's row labels."""
        if self.module_class:
            return self.module_class.lower()
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

    @model_validator(mode="after")
    def _norm_is_vggs(self) -> Self:
        if self.norm is not None and not isinstance(BACKBONES[self.name], VGGShape):
            raise ValueError(f"'norm' has no meaning for {self.name}; remove it")
        return self


class Detector(Model):
    """A detector. Faster R-CNN has its gates in the backbone, the others before each classifier."""

    name: Literal["faster-rcnn", "ssd", "stairnet"]
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

    @model_validator(mode="after")
    def _regions_are_faster_rcnns(self) -> Self:
        for key in ("regions", "proposals", "crop"):
            if getattr(self, key) is not None and self.name != "faster-rcnn":
                raise ValueError(f"'{key}' has no meaning for {self.name}; remove it")
        return self


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

    @property
    def least_batch(self) -> int:
        """The fewest images that a process trains on in a step: BatchNorm needs two."""
        return 2


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

    @property
    def least_batch(self) -> int:
        """The fewest images that a process trains on in a step: two where BatchNorm is trained.

        Faster R-CNN's keeps its statistics; SSD has none beside its backbone's and its gates'.
        """
        if self.detector.name == "faster-rcnn":
            return 1
        plain = isinstance(BACKBONES[self.backbone.name], VGGShape) and not self.backbone.norm
        alone = self.detector.name == "ssd" and plain and not self.attention.norm
        return 1 if alone else 2

    @model_validator(mode="after")
    def _normalises(self) -> Self:
        if self.recipe.batch_size < self.least_batch:
            raise ValueError(
                f"expected a recipe.batch_size of at least {self.least_batch} for "
                f"{self.detector.name} on {self.backbone.name}, whose BatchNorm normalises over a "
                f"step's images, got {self.recipe.batch_size}"
            )
        return self


class Run(Model):
    """One training: a spec and a seed. It is what a run folder's `spec.json` holds."""

    seed: Seed = Field(description="Seeds initial weights and data order.")
    spec: Annotated[Spec | DetectionSpec, Field(discriminator="task")]

    def canonical(self) -> str:
        """Return the run as JSON with sorted keys and no spaces."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def path(self) -> str:
        """The run's folder below `results/<tier>/runs`."""
        return f"{self.spec.run_id}/seed-{self.seed}"

    @property
    def initial(self) -> "Run | None":
        """The run whose weights the backbone starts from; None where it starts from the seed."""
        first = self.spec.initial if isinstance(self.spec, DetectionSpec) else None
        return Run(seed=self.seed, spec=first) if first else None
