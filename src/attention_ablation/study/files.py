"""The user's files, read and checked: config.yaml, a study's files, a tier's YAML."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from attention_ablation.base.errors import UserError, require, shortened
from attention_ablation.base.invalid import invalid
from attention_ablation.base.io import read_csv
from attention_ablation.base.model import Model
from attention_ablation.base.yaml import read_yaml
from attention_ablation.detectors.record import Detector, check_fit
from attention_ablation.gates.record import seal
from attention_ablation.networks.record import Backbone
from attention_ablation.study.checks import (
    check_columns,
    check_file,
    check_row,
    check_study,
    check_tables,
    check_tier,
)
from attention_ablation.study.claims import ClaimsFile
from attention_ablation.study.config import Row, Study, StudyFile, Tier

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
    studies = sorted(found.parent.name for found in folder.parent.glob("studies/*/study.yaml"))
    check_tier(tier, studies, path)
    return tier


def load_study(folder: Path, name: str, where: object) -> Study:
    """Read the study `name` below `folder` and check every name that it mentions.

    `folder` is workflow/studies; files of a user's own gates are below the folder of `workflow`.
    """
    path = _listed("study", folder, "*/study.yaml", name, where)
    file = parse(StudyFile, read_yaml(path), path)
    check_file(file, path)
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
    check_study(study, path, said)
    return study


def parse(model: type[ModelType], data: Any, where: object) -> ModelType:
    """Validate `data` against `model`, turning findings into a UserError about `where`."""
    try:
        return model.model_validate(_keys(data, where))
    except ValidationError as error:
        raise invalid(error, model, where) from None


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
    taken: set[tuple[str, str]] = set()
    columns, records = read_csv(path)
    check_columns(columns, study, path)
    for line, record in records:
        where = f"{path} line {line}"
        if None in record or None in record.values():
            got = sum(cell is not None for cell in record.values()) + len(record.get(None) or [])  # type: ignore[call-overload]
            raise UserError(f"{where}: expected {len(columns)} cells between commas, got {got}.")
        row = _parse_row(record, study.metrics, where)
        check_row(row, study, taken, where)
        rows[where] = row
        taken.add((row.table, row.key))
    check_tables(rows.values(), study, path)
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
