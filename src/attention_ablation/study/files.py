"""The user's files, read and checked: config.yaml, a study's files, a tier's YAML."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from attention_ablation.base.errors import UserError, invalid, shortened, unknown
from attention_ablation.base.io import read_csv
from attention_ablation.base.model import Model
from attention_ablation.base.yaml import read_yaml
from attention_ablation.detectors.record import Detector, check_fit
from attention_ablation.gates.record import seal
from attention_ablation.networks.record import BACKBONES, Backbone
from attention_ablation.study.claims import Claim, ClaimsFile, check_claims
from attention_ablation.study.config import Row, Study, StudyFile, Tier
from attention_ablation.study.metrics import Metric, check_metrics
from attention_ablation.study.references import check_references

ModelType = TypeVar("ModelType", bound=Model)


def merged(files: Iterable[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of config files and of settings, the later ones before the earlier ones."""
    config: dict[str, Any] = {}
    for path in files:
        config |= _keys(read_yaml(path), path)
    return config | dict(settings)


def load_tier(folder: Path, name: str, where: object) -> Tier:
    """Read the tier `name` below `folder`; `where` is the file that names it."""
    path = _listed("tier", folder, "*.yaml", name, where)
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
    path = _listed("study", folder, "*/study.yaml", name, where).parent
    file = parse(StudyFile, read_yaml(path / "study.yaml"), path / "study.yaml")
    columns = {name: table.columns for name, table in file.tables.items()}
    check_metrics(file.metrics, columns, path / "study.yaml")
    rows = _read_rows(path / "rows.csv", file)
    file = _seal_modules(file, rows, folder.parent.parent, path / "study.yaml")
    claims = _read_claims(path / "claims.yaml")
    study = Study(name=name, rows=rows, claims=claims, **dict(file))
    _check_references(study, path / "study.yaml")
    check_references(study, path, path / "study.yaml")
    check_claims(study, path / "claims.yaml")
    return study


def parse(model: type[ModelType], data: Any, where: object) -> ModelType:
    """Validate `data` against `model`, turning findings into a UserError about `where`."""
    try:
        return model.model_validate(_keys(data, where))
    except ValidationError as error:
        raise invalid(error, model, where) from None


def _keys(data: Any, where: object) -> dict[str, Any]:
    """Return data that are keys with values. Raises UserError for others."""
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{where}: expected keys with values, got {shortened(data)}.")
    return data


def _listed(kind: str, folder: Path, pattern: str, name: str, where: object) -> Path:
    """Return the file of a name in a folder. Raises UserError where there is none inside."""
    files = {
        path.relative_to(folder).parts[0].removesuffix(".yaml"): path
        for path in folder.glob(pattern)
    }
    if not files:
        raise UserError(
            f"{where}: unknown {kind} '{name}'; there are none in {folder}. Run it in the "
            "project's folder, where workflow/ is."
        )
    if name not in files:
        raise unknown(kind, name, sorted(files), where)
    path = files[name].resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(
            f"{where}: expected the {kind} '{name}' in {folder}, but a link leads to {path}; copy "
            "it there."
        )
    return files[name]


def _read_rows(path: Path, study: StudyFile) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    required, optional = ["table", "label", "backbone", "attention"], ["detector", *study.metrics]
    columns, records = read_csv(path)
    known = set(required) <= set(columns) <= {*required, *optional}
    if not known or len(set(columns)) < len(columns):
        raise UserError(
            f"{path}: expected the columns {','.join(required)} in line 1, and some of "
            f"{','.join(optional)}; got {','.join(columns)}."
        )
    for line, record in records:
        where = f"{path} line {line}"
        if None in record or None in record.values():
            raise UserError(f"{where}: expected {len(columns)} cells, separated by commas.")
        row = _parse_row(record, study.metrics, where)
        for kind, name, valid in (
            ("table", row.table, study.tables),
            ("backbone", row.backbone, BACKBONES),
            ("attention", row.attention, study.attentions),
        ):
            if name not in valid:
                raise unknown(kind, name, valid, where)
        if (row.table, row.key) in rows:
            raise UserError(f"{where}: {row.table} has the row '{row.key}' already; remove one.")
        if row.detector and row.detector not in study.counted_on.detectors:
            raise UserError(
                f"{where}: expected {row.detector} below counted_on.detectors in study.yaml, with "
                "the classes and the image size that its parameters are counted on; add it."
            )
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


def _parse_row(record: dict[str, str], metrics: Mapping[str, Metric], where: str) -> Row:
    cells = {metric: record.pop(metric, "") for metric in metrics}
    if not record.get("detector"):
        record.pop("detector", None)
    printed = {metric: cell for metric, cell in cells.items() if cell}
    for metric, cell in printed.items():
        if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", cell):
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
        figure.check(study, f"{where}: figures.{name}")
