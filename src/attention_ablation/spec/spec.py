"""A run's identity: everything that can change a result, and nothing that cannot.

Equal specs are one run, however many tables show it. Device, threads, workers, log interval and
output folder are never in a spec. A field added later defaults to None, which the canonical JSON
leaves out, so that the ids of runs already trained stay what they are.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.model import Model, Seed, canonical_json, short_hash
from attention_ablation.detectors.record import Detector
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone, FrontEnd
from attention_ablation.spec.recipes import ClassificationRecipe, DetectionRecipe


class Identity(Model):
    """A record that its canonical JSON identifies."""

    def canonical(self) -> str:
        """Return the record as JSON: sorted keys, no spaces, no unset fields."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))


class FrontEndSpec(Identity):
    """The training of a front-end's autoencoder, apart from its seed; all its classifiers share it.

    Of the recipe's keys for classification alone, such as label_smoothing, it makes no use.
    """

    least_batch: ClassVar = 1  # there is no BatchNorm

    task: Literal["front-end"] = "front-end"
    front_end: FrontEnd
    recipe: ClassificationRecipe

    @property
    def run_id(self) -> str:
        return f"{self.front_end}_{short_hash(self.canonical())}"

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if (size := self.recipe.dataset.image_size) % 2:
            raise ValueError(
                f"expected an even recipe.dataset.image_size, which {self.front_end} halves, got "
                f"{size}"
            )
        return self


class Spec(Identity):
    """One classification training, apart from its seed.

    `initial` is the training, of the same seed, of its front-end, whose weights it keeps; the hash
    of it is part of this one's.
    """

    # The fewest images that a process trains on in a step: BatchNorm needs two.
    least_batch: ClassVar = 2

    task: Literal["classification"] = "classification"
    backbone: Backbone
    attention: Attention
    recipe: ClassificationRecipe
    initial: FrontEndSpec | None = None

    @model_validator(mode="after")
    def _starts_from_its_front_end(self) -> Self:
        if (self.initial and self.initial.front_end) != self.backbone.front_end:
            raise ValueError("expected the training of the backbone's front-end as 'initial'")
        return self

    @model_validator(mode="after")
    def _sees_its_gates(self) -> Self:
        if self.attention.method and self.recipe.compile:
            raise ValueError(
                f"expected no recipe.compile with the method '{self.attention.method}', which sees "
                f"and replaces what is inside the gates, got '{self.recipe.compile}'; leave one out"
            )
        return self

    @property
    def run_id(self) -> str:
        """The name of the folder of its runs, unique by the hash at its end."""
        names = filter(None, (self.backbone.name, self.backbone.front_end, self.attention.slug))
        return "_".join([*names, short_hash(self.canonical())])


class DetectionSpec(Identity):
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

    @property
    def run_id(self) -> str:
        names = (self.backbone.name, self.detector.name, self.attention.slug)
        return "_".join([*names, short_hash(self.canonical())])

    @property
    def least_batch(self) -> int:
        """Two where BatchNorm is trained.

        Faster R-CNN's keeps its statistics; SSD has none beside its backbone's and its gates'.
        """
        if self.detector.name == "faster-rcnn":
            return 1
        plain = not self.backbone.network.normalises(self.backbone)
        return 1 if self.detector.name == "ssd" and plain and not self.attention.norm else 2

    @model_validator(mode="after")
    def _trains_by_its_loss(self) -> Self:
        if self.attention.method:
            raise ValueError(
                f"expected no method of a detector's attention, got '{self.attention.method}', "
                "which is for classification; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _normalises(self) -> Self:
        if self.recipe.batch_size < self.least_batch:
            raise ValueError(
                f"expected a recipe.batch_size of at least {self.least_batch} for "
                f"{self.detector.name} on {self.backbone.name}, whose BatchNorm normalises over a "
                f"step's images, got {self.recipe.batch_size}"
            )
        return self


RowSpec = Spec | DetectionSpec
AnySpec = RowSpec | FrontEndSpec


class Run(Identity):
    """One training: a spec and a seed. It is what a run folder's `spec.json` holds."""

    seed: Seed = Field(description="Seeds initial weights and data order.")
    spec: Annotated[AnySpec, Field(discriminator="task")]

    @property
    def path(self) -> str:
        """The run's folder below `results/<tier>/runs`."""
        return f"{self.spec.run_id}/seed-{self.seed}"

    @property
    def initial(self) -> "Run | None":
        """The run whose weights the backbone or front-end has; None where all is of the seed."""
        first = None if isinstance(self.spec, FrontEndSpec) else self.spec.initial
        return Run(seed=self.seed, spec=first) if first else None
