"""The user's files, typed: config.yaml, a study's files, a tier's YAML."""

import csv
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from attention_ablation.study.backbones import BACKBONES
from attention_ablation.study.claims import Claim, ClaimsFile, check_claims
from attention_ablation.study.errors import UserError, invalid, unknown
from attention_ablation.study.model import Model
from attention_ablation.study.recipes import ClassificationRecipe
from attention_ablation.study.spec import Attention, Backbone

ModelType = TypeVar("ModelType", bound=Model)
METRICS = ("params_m", "gflops", "top1_error", "top5_error")
Metric = Literal["params_m", "gflops", "top1_error", "top5_error"]


def _no_duplicates(values: list[Any]) -> list[Any]:
    repeated = [value for i, value in enumerate(values) if value in values[:i]]
    if repeated:
        raise ValueError(f"expected each value once, got {repeated[0]!r} twice; remove one")
    return values


def _number(value: Any) -> Any:
    # Snakemake's --config hands the items of a list on as text.
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value


Seed = Annotated[int, Field(ge=0), BeforeValidator(_number)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_no_duplicates)]

Names = Annotated[list[str], Field(min_length=1), AfterValidator(_no_duplicates)]


class Config(Model):
    """What to regenerate: config.yaml."""

    study: str = Field(description="A folder in workflow/studies: rows, tables, printed values.")
    tier: str = Field(description="A file in workflow/tiers: data sets, recipes and seeds.")
    tables: Literal["all"] | Names = Field(
        "all", description="The study's tables to regenerate, e.g. [table1, table3], or all."
    )
    seeds: Seeds | None = Field(
        None, description="Seeds, one training each, e.g. [0, 1, 2]; null takes the tier's."
    )
    results: str = Field("results", description="Folder for runs, tables and figures.")
    data: str | None = Field(
        None,
        description="Folder in which each data set lies by its name; null: <results>/data.",
    )
    hardware: str | None = Field(
        None,
        description="What costs are estimated for: a calibrated device, or published rates (a100, "
        "v100, rtx3090); null: the latest calibration that knows every network, else a100.",
    )
    budget: float | None = Field(
        None, gt=0, description="Device-hours above which nothing is started; null: no limit."
    )


class Sizing(Model):
    """The size of a network and the recipe that trains it."""

    width: float = Field(1.0, gt=0, description="Factor on every network's channels.")
    stride: Literal["v1", "v1.5"] = "v1"
    stem: Literal["cifar"] | None = Field(
        None, description="'cifar': 3x3 with stride 1 and no pooling; null: the paper's."
    )
    reduction: int | None = Field(
        None, ge=1, description="Reduction of every MLP; null leaves the study's."
    )
    recipe: ClassificationRecipe


class ClassificationTier(Sizing):
    """How a tier trains classification rows."""

    backbones: dict[str, Sizing] = Field(
        default_factory=dict, description="Backbones that need another size or recipe, by name."
    )


class Tier(Model):
    """The size at which a study runs: workflow/tiers/<name>.yaml."""

    title: str
    limits: str = Field(description="What this tier can and cannot say; printed under tables.")
    seeds: Seeds
    classification: ClassificationTier


class Row(Model):
    """A line of a table: rows.csv. Printed values keep their digits, so they stay strings."""

    table: str
    label: str
    backbone: str
    attention: str
    printed: dict[Metric, str] = Field(description="What the paper prints, by metric.")

    @property
    def key(self) -> str:
        """The row's name within its table: backbone, and attention where there is one."""
        return self.backbone if self.attention == "none" else f"{self.backbone}+{self.attention}"


class Table(Model):
    """A table of the paper: its title, place, and columns."""

    title: str
    section: str
    columns: list[Metric]
    group_by: Literal["backbone"] | None = Field(
        None,
        description="Within what rows are compared, so that their recipes must be equal, and a "
        "best cell is sought; the whole table where null.",
    )


class Panel(Model):
    """One pair of axes of an error-curve figure."""

    title: str
    table: str
    rows: list[str] = Field(min_length=1)


class CurvesFigure(Model):
    """Training and validation error against epoch, a panel for each backbone."""

    kind: Literal["error-curves"]
    title: str
    section: str
    panels: list[Panel] = Field(min_length=1)

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        """The tables whose rows the figure shows, each with the rows' keys."""
        return [(panel.table, panel.rows) for panel in self.panels]


class GradCamFigure(Model):
    """Where rows of one table look: Grad-CAM of the same validation images, a line for each row."""

    kind: Literal["gradcam"]
    title: str
    section: str
    table: str
    rows: Names = Field(
        description="Rows with one backbone; the others are compared with the first."
    )

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        """The table whose rows the figure shows, with the rows' keys."""
        return [(self.table, self.rows)]


Figure = Annotated[CurvesFigure | GradCamFigure, Field(discriminator="kind")]


class Discrepancy(Model):
    """Printed complexity cells that no network reproduces, named and explained."""

    table: str
    rows: list[str] = Field(min_length=1)
    metrics: list[Literal["params_m", "gflops"]] = Field(min_length=1)
    explanation: str


class StudyFile(Model):
    """A paper's tables and figures as data: study.yaml."""

    title: str
    citation: str
    attentions: dict[str, Attention]
    tables: dict[str, Table]
    figures: dict[str, Figure] = Field(default_factory=dict)
    discrepancies: dict[str, Discrepancy] = Field(default_factory=dict)


class Study(StudyFile):
    """A study with its rows and, where it has a claims.yaml, its claims."""

    name: str
    rows: list[Row]
    claims: dict[str, Claim] = Field(default_factory=dict)

    def table_rows(self, table: str) -> list[Row]:
        """Return the rows of one table, in the paper's order."""
        return [row for row in self.rows if row.table == table]


def load_config(path: Path) -> Config:
    """Read config.yaml. Raises UserError for whatever is not right in it."""
    return parse(Config, read_yaml(path), path)


def load_tier(folder: Path, name: str, where: object) -> Tier:
    """Read the tier `name` below `folder`; `where` is the file that names it."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown("tier", name, sorted(p.stem for p in folder.glob("*.yaml")), where)
    tier = parse(Tier, read_yaml(path), path)
    for backbone in tier.classification.backbones:
        if backbone not in BACKBONES:
            raise unknown("backbone", backbone, BACKBONES, f"{path}: classification.backbones")
    return tier


def load_study(folder: Path, name: str, where: object) -> Study:
    """Read the study `name` below `folder` and check every name that it mentions."""
    path = folder / name
    if not (path / "study.yaml").is_file():
        raise unknown(
            "study", name, sorted(p.parent.name for p in folder.glob("*/study.yaml")), where
        )
    file = parse(StudyFile, read_yaml(path / "study.yaml"), path / "study.yaml")
    rows = _read_rows(path / "rows.csv", file)
    claims = _read_claims(path / "claims.yaml")
    parts = {key: getattr(file, key) for key in StudyFile.model_fields}
    study = Study(name=name, rows=rows, claims=claims, **parts)
    _check_references(study, path / "study.yaml")
    columns = {name: table.columns for name, table in study.tables.items()}
    keys = {name: [row.key for row in study.table_rows(name)] for name in study.tables}
    check_claims(claims, columns, keys, path / "claims.yaml")
    return study


def parse(model: type[ModelType], data: Any, where: object) -> ModelType:
    """Validate `data` against `model`, turning findings into a UserError about `where`."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected keys with values, got {data!r}.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid(error, model, where) from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file. Raises UserError where it cannot be read or does not parse."""
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is not valid YAML: {error}") from None


def read_text(path: Path) -> str:
    """Read a text file. Raises UserError where there is none or it is not text."""
    try:
        return path.read_text()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected text in UTF-8.") from None


def check_fit(attention: Attention, backbone: Backbone, where: object) -> None:
    """Raise UserError where a gate does not fit the narrowest place of a backbone."""
    channels = min(BACKBONES[backbone.name].gated_channels(backbone.width))
    if channels < 1:
        raise UserError(
            f"{where}: expected a width that leaves {backbone.name} a channel everywhere, got "
            f"{backbone.width:g}; raise it."
        )
    if attention.reduction is not None and attention.reduction > channels:
        raise UserError(
            f"{where}: expected a reduction of at most {channels}, the fewest channels at a gate "
            f"of {backbone.name} at width {backbone.width:g}, got {attention.reduction}; lower the "
            "reduction or raise the width."
        )


def _read_rows(path: Path, study: StudyFile) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    columns = ["table", "label", "backbone", "attention", *METRICS]
    reader = csv.DictReader(read_text(path).splitlines())
    if reader.fieldnames != columns:
        raise UserError(f"{path}: expected the columns {','.join(columns)} in line 1.")
    for record in reader:
        where = f"{path} line {reader.line_num}"
        if None in record or None in record.values():
            raise UserError(f"{where}: expected {len(columns)} cells, separated by commas.")
        row = _parse_row(record, where)
        for kind, name, valid in (
            ("table", row.table, study.tables),
            ("backbone", row.backbone, BACKBONES),
            ("attention", row.attention, study.attentions),
        ):
            if name not in valid:
                raise unknown(kind, name, valid, where)
        if (row.table, row.key) in rows:
            raise UserError(f"{where}: {row.table} has the row '{row.key}' already; remove one.")
        check_fit(study.attentions[row.attention], Backbone(name=row.backbone), where)
        rows[row.table, row.key] = row
    for table in study.tables:
        if table not in {row.table for row in rows.values()}:
            raise UserError(f"{path}: {table} has no row; add one, or remove it from study.yaml.")
    return list(rows.values())


def _parse_row(record: dict[str, str], where: str) -> Row:
    cells = {metric: record.pop(metric) for metric in METRICS}
    printed = {metric: cell for metric, cell in cells.items() if cell}
    for metric, cell in printed.items():
        if not cell.replace(".", "", 1).isdigit():
            raise UserError(f"{where}: {metric}: expected a number, got '{cell}'.")
    return parse(Row, {**record, "printed": printed}, where)


def _read_claims(path: Path) -> dict[str, Claim]:
    return parse(ClaimsFile, read_yaml(path), path).claims if path.exists() else {}


def _check_references(study: Study, where: Path) -> None:
    mentions = [
        (f"figures.{name}", table, rows)
        for name, figure in study.figures.items()
        for table, rows in figure.shown
    ] + [(f"discrepancies.{name}", d.table, d.rows) for name, d in study.discrepancies.items()]
    for place, table, rows in mentions:
        if table not in study.tables:
            raise unknown("table", table, study.tables, f"{where}: {place}")
        keys = [row.key for row in study.table_rows(table)]
        for key in rows:
            if key not in keys:
                raise unknown("row", key, keys, f"{where}: {place}: {table}")
    for name, figure in study.figures.items():
        if isinstance(figure, GradCamFigure):
            _check_one_backbone(study, figure, f"{where}: figures.{name}")


def _check_one_backbone(study: Study, figure: GradCamFigure, where: str) -> None:
    rows = [row for row in study.table_rows(figure.table) if row.key in figure.rows]
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    if len(backbones) > 1:
        raise UserError(
            f"{where}: expected rows with one backbone, whose maps come from the same images and "
            f"the same layer, got {', '.join(backbones)}; leave some out."
        )
