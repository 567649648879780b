"""What the user's files hold, typed: config.yaml, a study's files, a tier's YAML."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from attention_ablation.base.model import (
    Folder,
    Line,
    Model,
    Name,
    Names,
    Prose,
    Seeds,
    no_duplicates,
)
from attention_ablation.detectors.record import DetectorName, DetectorSize
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import BackboneSize, FrontEnd
from attention_ablation.spec.recipes import ClassificationRecipe, DetectionRecipe
from attention_ablation.study.claims import Claim
from attention_ablation.study.figure import Figure, any_figure
from attention_ablation.study.metrics import METRICS, CountedOn, Metric
from attention_ablation.study.references import Reference
from attention_ablation.study.times import Times


class Config(Model):
    """What to regenerate: config.yaml."""

    study: Name = Field(description="A folder in workflow/studies: rows, tables, printed values.")
    tier: Name = Field(description="A file in workflow/tiers: data sets, recipes and seeds.")
    tables: Literal["all"] | Names = Field(
        "all", description="The study's tables to regenerate, e.g. [table1, table3], or all."
    )
    seeds: Seeds | None = Field(
        None, description="Seeds, one training each, e.g. [0, 1, 2]; null takes the tier's."
    )
    results: Folder = Field("results", description="Folder for runs, tables and figures.")
    data: Folder | None = Field(
        None, description="Folder in which each data set lies by its name; null: <results>/data."
    )
    hardware: str | None = Field(
        None,
        description="What costs are estimated for: a calibrated device, or published rates (a100, "
        "v100, rtx3090); null: the latest calibration that knows every network, else a100.",
    )
    budget: float | None = Field(
        None, gt=0, description="Device-hours above which nothing is started; null: no limit."
    )


class GateSize(Model):
    """What a tier chooses of gates where the study leaves it open."""

    reduction: int | None = Field(
        None, ge=1, description="Reduction of every MLP; null leaves the study's."
    )
    start: Literal["half", "identity"] | None = Field(
        None, description="Start of gates with a sigmoid; null: the authors'."
    )


class Sizing(GateSize, BackboneSize):
    """The size of a network and the recipe that trains it."""

    recipe: ClassificationRecipe


class ClassificationTier(Sizing):
    """How a tier trains classification rows, and the size of detectors' backbones."""

    backbones: dict[str, Sizing] = Field(
        default_factory=dict, description="Backbones that need another size or recipe, by name."
    )
    front_end: ClassificationRecipe | None = Field(
        None,
        description="How the front-ends of rows are trained, before the rows; null: by the rows' "
        "recipe with a tenth of its learning rate.",
    )

    def sizing(self, backbone: str) -> Sizing:
        return self.backbones.get(backbone, self)


class DetectionSizing(GateSize, DetectorSize):
    """The size of a detector's own layers and the recipe that trains it.

    Its backbone has the size of its classification.
    """

    initial: bool = Field(
        True,
        description="Start the backbone from the tier's classification run of the same backbone, "
        "gates and seed, which is trained first where it is not there.",
    )
    recipe: DetectionRecipe


class DetectionTier(DetectionSizing):
    """How a tier trains the rows of a detector."""

    backbones: dict[str, DetectionSizing] = Field(
        default_factory=dict,
        description="Backbones on which it needs another size or recipe, by name.",
    )

    def sizing(self, backbone: str) -> DetectionSizing:
        return self.backbones.get(backbone, self)


class Tier(Model):
    """The size at which a study runs: workflow/tiers/<name>.yaml."""

    title: Line
    limits: Prose = Field(description="What this tier can and cannot say; printed under tables.")
    seeds: Seeds
    margin: float | None = Field(
        None,
        gt=0,
        description="Points within which rows are equivalent at this size, in place of the margins "
        "that claims state; null: the claims' own.",
    )
    protocol_of: Annotated[list[Name], AfterValidator(no_duplicates)] = Field(
        default_factory=list,
        description="Studies whose paper's protocol this tier follows, e.g. [cbam]: only of those "
        "are trained numbers compared with the paper's.",
    )
    classification: ClassificationTier
    detection: dict[DetectorName, DetectionTier] = Field(
        default_factory=dict, description="By detector; tables of the others are not trained."
    )
    tables: Names | None = Field(
        None, description="The tables that this tier is for; null: all that it has recipes of."
    )

    @model_validator(mode="after")
    def _gates_in_backbones_are_sized_there(self) -> Self:
        detector = self.detection.get("faster-rcnn")
        sizings = [detector, *detector.backbones.values()] if detector else []
        for key in ("reduction", "start"):
            if any(getattr(sizing, key) for sizing in sizings):
                raise ValueError(
                    f"'{key}' has no meaning for faster-rcnn, whose gates are those of its "
                    "backbone; set it below classification"
                )
        return self


class Row(Model):
    """A line of a table: rows.csv. Printed values keep their digits, so they stay strings."""

    table: str
    label: Line
    backbone: str
    front_end: FrontEnd | None = None
    detector: DetectorName | None = None
    attention: str
    times: float | None = Field(None, gt=0, description="Of the key that the table varies.")
    printed: dict[str, str] = Field(description="What the paper prints, by metric.")
    source: Line | None = Field(None, description="Where it is printed; null: the study's paper.")
    protocol: Line | None = Field(
        None,
        description="By what recipe; only errors of one source and recipe are compared.",
    )

    @property
    def key(self) -> str:
        """The row's name within its table, such as resnet50+cbam, or resnet50+cbam@x4."""
        return self.network + (f"@x{self.times:g}" if self.times else "")

    @property
    def network(self) -> str:
        """Its backbone, front-end, detector and attention, where there are."""
        attention = self.attention if self.attention != "none" else None
        parts = (self.backbone, self.front_end, self.detector, attention)
        return "+".join(filter(None, parts))


class Table(Model):
    """A table: its title, its section in the paper, and its columns."""

    title: Line
    section: Line | None = Field(None, description="Where the paper has it.")
    columns: Names = Field(description="Names of metrics.")
    group_by: Literal["backbone"] | None = Field(
        None,
        description="Within what rows are compared, so that their recipes must be equal, and a "
        "best cell is sought; the whole table where null.",
    )
    recipe: dict[Name, bool | int | float | str] = Field(
        default_factory=dict,
        description="Keys of the recipe that this table sets for all its rows, whatever the tier "
        "has, such as {zero_init_residual: false}.",
    )
    varies: Literal["epochs", "learning_rate", "weight_decay", "batch_size"] | None = Field(
        None,
        description="A key of the recipe that rows multiply, each by its `times` in rows.csv (1 "
        "where that is empty); with epochs the schedule is stretched. Only rows of the same times "
        "are compared as a group.",
    )


if TYPE_CHECKING:
    AnyFigure = Figure
else:
    AnyFigure = any_figure()


class Discrepancy(Model):
    """Printed complexity cells that no network reproduces, named and explained."""

    table: str
    rows: list[str] = Field(min_length=1)
    metrics: list[Literal["params_m", "gflops"]] = Field(min_length=1)
    explanation: Prose


class StudyFile(Model):
    """A paper's tables and figures as data: study.yaml."""

    title: Line
    citation: Prose
    attentions: dict[str, Attention]
    metrics: Annotated[dict[Name, Metric], AfterValidator(METRICS.__or__)] = Field(
        default_factory=dict,
        validate_default=True,
        description="The study's own, by name, besides those that every study has: "
        f"{', '.join(METRICS)}.",
    )
    counted_on: CountedOn = CountedOn()
    times: Times | None = None
    tables: dict[Name, Table]
    figures: dict[Name, AnyFigure] = Field(default_factory=dict)
    discrepancies: dict[Line, Discrepancy] = Field(default_factory=dict)
    references: dict[Line, Reference] = Field(
        default_factory=dict, description="Training curves that others published."
    )


class Study(StudyFile):
    """A study with its rows and, where it has a claims.yaml, its claims."""

    name: str
    rows: list[Row]
    step_times: dict[tuple[str, str], float] = Field(default_factory=dict)
    claims: dict[Line, Claim] = Field(default_factory=dict)

    @property
    def has_printed(self) -> bool:
        """Whether a paper prints anything of its rows, to stand beside ours."""
        return any(row.printed for row in self.rows)

    def table_rows(self, table: str) -> list[Row]:
        return [row for row in self.rows if row.table == table]

    def explaining(self, row: Row, metric: str) -> list[str]:
        """Return the discrepancies that are about a printed cell, by their names."""
        return [
            name
            for name, d in self.discrepancies.items()
            if d.table == row.table and row.key in d.rows and metric in d.metrics
        ]
