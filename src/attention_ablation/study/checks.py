"""What refuses a study or a tier: names that nothing has or that mean something else already.

Each function raises UserError about the file, and the place in it, that `where` says.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from attention_ablation.base.errors import UserError, require
from attention_ablation.networks.record import BACKBONES
from attention_ablation.study.config import Row, Study, StudyFile, Tier
from attention_ablation.study.metrics import COUNTED, METRICS, RESERVED, RUN_NUMBERS
from attention_ablation.study.references import read_curve

# What `render` writes beside tables and figures, by name.
RENDERED = ("runs", "claims", "report", "complexity", "all")
# Columns of rows.csv, beside those of metrics.
REQUIRED = ("table", "label", "backbone", "attention")
OPTIONAL = ("front_end", "detector", "times", "source", "protocol")


def check_folder(folder: Path, where: str) -> None:
    """Check that results can go into a folder."""
    # A file may have its name, or a parent's.
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), Path())
    if not there.is_dir():
        raise UserError(f"{where}: results: expected a folder, but {there} is none; name another.")


def check_tier(tier: Tier, studies: Collection[str], where: Path) -> None:
    """Check the names in a tier's file; `studies` are those that there are."""
    require("study", tier.protocol_of, studies, f"{where}: protocol_of")
    sized = {"classification": tier.classification.backbones} | {
        f"detection.{name}": detector.backbones for name, detector in tier.detection.items()
    }
    for key, backbones in sized.items():
        require("backbone", backbones, BACKBONES, f"{where}: {key}.backbones")


def check_file(study: StudyFile, where: Path) -> None:
    """Check the names of tables, figures and metrics in study.yaml."""
    _check_names(study, where)
    _check_metrics(study, where)


def check_columns(columns: list[str], study: StudyFile, path: Path) -> None:
    """Check line 1 of rows.csv."""
    optional = [*OPTIONAL, *study.metrics]
    if not set(REQUIRED) <= set(columns) or len(set(columns)) < len(columns):
        raise UserError(
            f"{path}: expected the columns {','.join(REQUIRED)} in line 1, and some of "
            f"{','.join(optional)}; got {','.join(columns)}."
        )
    require("column", columns, [*REQUIRED, *optional], f"{path} line 1")


def check_row(row: Row, study: StudyFile, taken: Collection[tuple[str, str]], where: str) -> None:
    """Check a line of rows.csv; `taken` are the tables and keys of the lines above."""
    require("table", [row.table], study.tables, where)
    require("backbone", [row.backbone], BACKBONES, where)
    require("attention", [row.attention], study.attentions, where)
    if row.times and not study.tables[row.table].varies:
        raise UserError(
            f"{where}: 'times' has no meaning in {row.table}, which varies nothing; say what "
            "below the table in study.yaml, such as varies: epochs, or leave it out."
        )
    if (row.table, row.key) in taken:
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


def check_tables(rows: Collection[Row], study: StudyFile, path: Path) -> None:
    """Check that every table has rows, all of one task."""
    for table in study.tables:
        tasks = {row.detector is None for row in rows if row.table == table}
        if not tasks:
            raise UserError(f"{path}: {table} has no row; add one, or remove it from study.yaml.")
        if len(tasks) > 1:
            raise UserError(
                f"{path}: {table}: expected a detector in every row or in none; make it two tables."
            )


def check_study(study: Study, where: Path, claims: Path) -> None:
    """Check what study.yaml, `where`, and claims.yaml, `claims`, say of rows and metrics."""
    _check_rows(study, where)
    _check_references(study, where)
    _check_claims(study, claims)


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
