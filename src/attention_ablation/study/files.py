"""The user's files, read and checked: config.yaml, a study's files, a tier's YAML."""

import csv
import io
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from attention_ablation.study.backbones import BACKBONES
from attention_ablation.study.claims import Claim, ClaimsFile, check_claims
from attention_ablation.study.config import (
    Config,
    GradCamFigure,
    ReferenceFigure,
    Row,
    Study,
    StudyFile,
    Tier,
)
from attention_ablation.study.detectors import check_detector, gated_channels
from attention_ablation.study.errors import UserError, invalid, unknown
from attention_ablation.study.io import read_text
from attention_ablation.study.metrics import METRICS
from attention_ablation.study.model import Model
from attention_ablation.study.modules import seal
from attention_ablation.study.references import check_references
from attention_ablation.study.spec import Attention, Backbone, Detector

ModelType = TypeVar("ModelType", bound=Model)


def load_config(path: Path) -> Config:
    """Read config.yaml. Raises UserError for whatever is not right in it."""
    return parse(Config, read_yaml(path), path)


def load_tier(folder: Path, name: str, where: object) -> Tier:
    """Read the tier `name` below `folder`; `where` is the file that names it."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown("tier", name, sorted(p.stem for p in folder.glob("*.yaml")), where)
    tier = parse(Tier, read_yaml(path), path)
    named = {"classification": tier.classification.backbones} | {
        f"detection.{name}": detector.backbones for name, detector in tier.detection.items()
    }
    for key, backbones in named.items():
        for backbone in backbones:
            if backbone not in BACKBONES:
                raise unknown("backbone", backbone, BACKBONES, f"{path}: {key}.backbones")
    return tier


def load_study(folder: Path, name: str, where: object) -> Study:
    """Read the study `name` below `folder` and check every name that it mentions.

    `folder` is workflow/studies; files of a user's own gates are below the folder of `workflow`.
    """
    path = folder / name
    if not (path / "study.yaml").is_file():
        raise unknown(
            "study", name, sorted(p.parent.name for p in folder.glob("*/study.yaml")), where
        )
    file = parse(StudyFile, read_yaml(path / "study.yaml"), path / "study.yaml")
    rows = _read_rows(path / "rows.csv", file)
    file = _seal_modules(file, rows, folder.parent.parent, path / "study.yaml")
    claims = _read_claims(path / "claims.yaml")
    parts = {key: getattr(file, key) for key in StudyFile.model_fields}
    study = Study(name=name, rows=rows, claims=claims, **parts)
    _check_references(study, path / "study.yaml")
    named = [f"{row.table}:{row.key}" for row in rows]
    check_references(study.references, named, path, path / "study.yaml")
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


def check_fit(
    attention: Attention, backbone: Backbone, where: object, detector: Detector | None = None
) -> None:
    """Raise UserError where a gate does not fit the narrowest place of a network.

    The gates are the backbone's or, with a detector, where that one has them.
    """
    shape = BACKBONES[backbone.name]
    if shape.narrowest(backbone.width) < 1:
        raise UserError(
            f"{where}: expected a width that leaves {backbone.name} a channel everywhere, got "
            f"{backbone.width:g}; raise it."
        )
    name, width = backbone.name, backbone.width
    gates = shape.gated_channels(width)
    if detector is not None:
        check_detector(detector, backbone, where)
        gates = gated_channels(detector, backbone)
        name = f"{detector.name} on {name}"
        width = width if detector.name == "faster-rcnn" else detector.width
    if not gates and attention != Attention():
        raise UserError(
            f"{where}: expected no attention in {name}, which has no gates, got "
            f"'{attention.slug}'; take 'none' or another backbone."
        )
    if attention.reduction is not None and attention.reduction > min(gates):
        raise UserError(
            f"{where}: expected a reduction of at most {min(gates)}, the fewest channels at a gate "
            f"of {name} at width {width:g}, got {attention.reduction}; lower the "
            "reduction or raise the width."
        )


def _read_rows(path: Path, study: StudyFile) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    required, optional = ["table", "label", "backbone", "attention"], ["detector", *METRICS]
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    columns = list(reader.fieldnames or [])
    if not set(required) <= set(columns) <= {*required, *optional}:
        raise UserError(
            f"{path}: expected the columns {','.join(required)} in line 1, and some of "
            f"{','.join(optional)}; got {','.join(columns)}."
        )
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
        detector = Detector(name=row.detector) if row.detector else None
        check_fit(study.attentions[row.attention], Backbone(name=row.backbone), where, detector)
        rows[row.table, row.key] = row
    for table in study.tables:
        tasks = {row.detector is None for row in rows.values() if row.table == table}
        if not tasks:
            raise UserError(f"{path}: {table} has no row; add one, or remove it from study.yaml.")
        if len(tasks) > 1:
            raise UserError(
                f"{path}: {table}: expected a detector in every row or in none; make it two tables."
            )
    return list(rows.values())


def _seal_modules(study: StudyFile, rows: list[Row], root: Path, where: Path) -> StudyFile:
    """Give the gates of a user's own that rows have the hash of their file."""
    named = {row.attention for row in rows}
    attentions = {
        name: seal(gate, root, f"{where}: attentions.{name}") if name in named else gate
        for name, gate in study.attentions.items()
    }
    return study.model_copy(update={"attentions": attentions})


def _parse_row(record: dict[str, str], where: str) -> Row:
    cells = {metric: record.pop(metric, "") for metric in METRICS}
    if not record.get("detector"):
        record.pop("detector", None)
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
        place = f"{where}: figures.{name}"
        if isinstance(figure, GradCamFigure):
            _check_one_backbone(study, figure, place)
        elif isinstance(figure, ReferenceFigure):
            if figure.reference not in study.references:
                raise unknown("reference", figure.reference, study.references, place)
            curves = study.references[figure.reference].curves
            for curve in (name for panel in figure.panels for name in panel.curves):
                if curve not in curves:
                    raise unknown("curve", curve, curves, place)


def _check_one_backbone(study: Study, figure: GradCamFigure, where: str) -> None:
    rows = [row for row in study.table_rows(figure.table) if row.key in figure.rows]
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    if len(backbones) > 1:
        raise UserError(
            f"{where}: expected rows with one backbone, whose maps come from the same images and "
            f"the same layer, got {', '.join(backbones)}; leave some out."
        )
