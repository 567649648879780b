"""The user's files, read and checked: config.yaml, a study's files, a tier's YAML."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from attention_ablation.base.errors import UserError, shortened, unknown
from attention_ablation.base.invalid import invalid
from attention_ablation.base.io import read_csv
from attention_ablation.base.model import Model
from attention_ablation.base.yaml import read_yaml
from attention_ablation.detectors.record import Detector, check_fit
from attention_ablation.gates.record import seal
from attention_ablation.networks.record import BACKBONES, Backbone
from attention_ablation.study.claims import ClaimsFile
from attention_ablation.study.config import Row, Study, StudyFile, Tier
from attention_ablation.study.metrics import COUNTED, METRICS, RESERVED, RUN_NUMBERS
from attention_ablation.study.references import read_curve

ModelType = TypeVar("ModelType", bound=Model)
# What `render` writes beside tables and figures, by name.
RENDERED = ("runs", "claims", "report", "complexity", "all")


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
    studies = sorted(found.parent.name for found in folder.parent.glob("studies/*/study.yaml"))
    require("study", tier.protocol_of, studies, f"{path}: protocol_of")
    sized = {"classification": tier.classification.backbones} | {
        f"detection.{name}": detector.backbones for name, detector in tier.detection.items()
    }
    for key, backbones in sized.items():
        require("backbone", backbones, BACKBONES, f"{path}: {key}.backbones")
    return tier


def load_study(folder: Path, name: str, where: object) -> Study:
    """Read the study `name` below `folder` and check every name that it mentions.

    `folder` is workflow/studies; files of a user's own gates are below the folder of `workflow`.
    """
    path = _listed("study", folder, "*/study.yaml", name, where)
    file = parse(StudyFile, read_yaml(path), path)
    _check_names(file, path)
    _check_metrics(file, path)
    rows = _read_rows(path.with_name("rows.csv"), file)
    attentions = dict(file.attentions)
    for key in dict.fromkeys(row.attention for row in rows.values()):
        gate = attentions[key]
        attentions[key] = seal(gate, folder.parent.parent, f"{path}: attentions.{key}")
    for where, row in rows.items():
        detector = Detector(name=row.detector) if row.detector else None
        backbone = parse(Backbone, {"name": row.backbone, "front_end": row.front_end}, where)
        check_fit(attentions[row.attention], backbone, where, detector)
    said = path.with_name("claims.yaml")
    claims = parse(ClaimsFile, read_yaml(said), said).claims if said.exists() else {}
    times = file.times.read(path.parent) if file.times else {}
    parts = dict(file) | {"name": name, "attentions": attentions, "step_times": times}
    study = Study(rows=list(rows.values()), claims=claims, **parts)
    _check_rows(study, path)
    _check_references(study, path)
    _check_claims(study, said)
    return study


def parse(model: type[ModelType], data: Any, where: object) -> ModelType:
    """Validate `data` against `model`, turning findings into a UserError about `where`."""
    try:
        return model.model_validate(_keys(data, where))
    except ValidationError as error:
        raise invalid(error, model, where) from None


def require(what: str, names: Iterable[str], valid: Collection[str], where: object) -> None:
    """Raise UserError, about `where`, for a name that is not among `valid`."""
    for name in names:
        if name not in valid:
            raise unknown(what, name, valid, where)


def _keys(data: Any, where: object) -> dict[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{where}: expected keys with values, got {shortened(data)}.")
    return data


def _listed(what: str, folder: Path, pattern: str, name: str, where: object) -> Path:
    """Return the file of a name in a folder. Raises UserError where there is none inside."""
    files = {
        path.relative_to(folder).parts[0].removesuffix(".yaml"): path
        for path in folder.glob(pattern)
    }
    if not files:
        raise UserError(
            f"{where}: unknown {what} '{name}'; there are none in {folder}. Run it in the "
            "project's folder, where workflow/ is."
        )
    require(what, [name], sorted(files), where)
    path = files[name].resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(
            f"{where}: expected the {what} '{name}' in {folder}, but a link leads to {path}; copy "
            "it there."
        )
    return files[name]


def _read_rows(path: Path, study: StudyFile) -> dict[str, Row]:
    """Return the rows by their places in the file."""
    rows: dict[str, Row] = {}
    keys: set[tuple[str, str]] = set()
    required = ["table", "label", "backbone", "attention"]
    optional = ["front_end", "detector", "times", "source", "protocol", *study.metrics]
    columns, records = read_csv(path)
    if not set(required) <= set(columns) or len(set(columns)) < len(columns):
        raise UserError(
            f"{path}: expected the columns {','.join(required)} in line 1, and some of "
            f"{','.join(optional)}; got {','.join(columns)}."
        )
    require("column", columns, [*required, *optional], f"{path} line 1")
    for line, record in records:
        where = f"{path} line {line}"
        if None in record or None in record.values():
            got = sum(cell is not None for cell in record.values()) + len(record.get(None) or [])  # type: ignore[call-overload]
            raise UserError(f"{where}: expected {len(columns)} cells between commas, got {got}.")
        row = _parse_row(record, study.metrics, where)
        require("table", [row.table], study.tables, where)
        require("backbone", [row.backbone], BACKBONES, where)
        require("attention", [row.attention], study.attentions, where)
        if row.times and not study.tables[row.table].varies:
            raise UserError(
                f"{where}: 'times' has no meaning in {row.table}, which varies nothing; say what "
                "below the table in study.yaml, such as varies: epochs, or leave it out."
            )
        if (row.table, row.key) in keys:
            raise UserError(f"{where}: {row.table} has the row '{row.key}' already; remove one.")
        if row.detector and row.front_end:
            raise UserError(
                f"{where}: expected a front-end or a detector, got {row.front_end} and "
                f"{row.detector}; leave one out."
            )
        if row.detector and row.detector not in study.counted_on.detectors:
            raise UserError(
                f"{where}: expected {row.detector} below counted_on.detectors in study.yaml, with "
                "the classes and the image size that its parameters are counted on; add it."
            )
        rows[where] = row
        keys.add((row.table, row.key))
    for table in study.tables:
        tasks = {row.detector is None for row in rows.values() if row.table == table}
        if not tasks:
            raise UserError(f"{path}: {table} has no row; add one, or remove it from study.yaml.")
        if len(tasks) > 1:
            raise UserError(
                f"{path}: {table}: expected a detector in every row or in none; make it two tables."
            )
    return rows


def _parse_row(record: dict[str, str], metrics: Iterable[str], where: str) -> Row:
    printed = {name: cell for name in metrics if (cell := record.pop(name, ""))}
    for key, cell in printed.items() | {("times", record.get("times") or "1")}:
        if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", cell):
            raise UserError(f"{where}: {key}: expected a number, got '{cell}'.")
    times = float(text) if (text := record.pop("times", None)) else None
    given: dict[str, Any] = {"times": times, "printed": printed}
    optional = ("front_end", "detector", "source", "protocol")
    given |= {key: record.pop(key, None) or None for key in optional}
    return parse(Row, record | given, where)


def _check_names(study: StudyFile, where: Path) -> None:
    """Raise UserError for names that `render` and the results' folder have for something else."""
    for name in [*study.tables, *study.figures]:
        other = "figure" if name in study.tables else "table"
        if name in RENDERED or (name in study.tables and name in study.figures):
            what = f"a {other}" if name not in RENDERED else "something else that is rendered"
            raise UserError(f"{where}: '{name}' is the name of {what}; take another name.")


def _check_metrics(study: StudyFile, where: Path) -> None:
    for name, metric in study.metrics.items():
        if METRICS.get(name, metric) != metric:
            raise UserError(f"{where}: metrics: every study has a '{name}'; take another name.")
        if name in RESERVED or name.endswith(("_sd", "_paper")):
            raise UserError(
                f"{where}: metrics: '{name}' is the name of another column of a table; take "
                "another name."
            )
        numbers = [*COUNTED, *RUN_NUMBERS]
        require("number", [metric.source], numbers, f"{where}: metrics.{name}.source")
    for name, table in study.tables.items():
        require("metric", table.columns, study.metrics, f"{where}: tables.{name}.columns")


def _check_rows(study: Study, where: Path) -> None:
    """Check the tables and rows of discrepancies and figures, and figures by their own rules."""
    for name, d in study.discrepancies.items():
        _require_rows(study, d.table, d.rows, f"{where}: discrepancies.{name}")
    for name, figure in study.figures.items():
        for table, rows in figure.shown:
            _require_rows(study, table, rows, f"{where}: figures.{name}")
        figure.check(study, f"{where}: figures.{name}")


def _require_rows(study: Study, table: str, rows: Iterable[str], where: str) -> None:
    require("table", [table], study.tables, where)
    require("row", rows, [row.key for row in study.table_rows(table)], f"{where}: {table}")


def _check_references(study: Study, where: Path) -> None:
    """Raise UserError for an unknown row, another's row, or a curve that cannot be read."""
    rows = [f"{row.table}:{row.key}" for row in study.rows]
    for name, reference in study.references.items():
        require("row", reference.results, rows, f"{where}: references.{name}.results")
        for row, numbers in reference.results.items():
            require("metric", numbers, study.metrics, f"{where}: references.{name}.results.{row}")
        curve_of: dict[str, str] = {}
        for key, curve in reference.curves.items():
            place = f"{where}: references.{name}.curves.{key}"
            read_curve(where.parent / curve.file)
            if curve.row is not None:
                require("row", [curve.row], rows, place)
                if (first := curve_of.setdefault(curve.row, key)) != key:
                    raise UserError(f"{place}: '{first}' stands for {curve.row} already.")


def _check_claims(study: Study, where: Path) -> None:
    others = [name for name, metric in study.metrics.items() if not metric.counted]
    for name, claim in study.claims.items():
        for number, comparison in enumerate(claim.comparisons):
            place = f"{where}: claims.{name}.comparisons.{number}"
            for table, key in [*comparison.places, *comparison.beside]:
                _require_rows(study, table, [key], place)
                valid = dict.fromkeys([*study.tables[table].columns, *others])
                require("metric", comparison.metrics, valid, f"{place}: {table}")
            higher = [m for m in comparison.metrics if study.metrics[m].better == "higher"]
            if higher and "predicate" not in comparison.model_fields_set:
                raise UserError(
                    f"{place}: expected a predicate, because more of {higher[0]} is better and "
                    "where it is left out 'less' is meant; add predicate: greater, or less."
                )
