"""From a cell of a table to the trainings, or the count, that it came from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.detectors.record import Detector
from attention_ablation.detectors.shapes import PAPER_DATA
from attention_ablation.evidence.counted import COMPLEXITY_CSV, counted
from attention_ablation.networks.record import Backbone
from attention_ablation.report.collect import collect
from attention_ablation.report.numbers import cell_text, decimals, table_frame
from attention_ablation.runs.folder import LOG
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Row
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS, Metric

PACKAGES = ("attention_ablation", "python", "torch", "torchvision", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training below a cell. What was not recorded, or has not come out, is None.

    value: the cell's metric, %; None, too, where the record is not that of a cell. seconds: of the
    process that finished the run; compute_seconds: of the whole training. images_per_second: of the
    last epoch, end to end. Peak memory: MB (2**20 bytes), on the device for GPUs only. verified:
    see `report.collect`.
    """

    folder: str
    log: str
    seed: int
    status: str
    reason: str | None
    verified: str | None
    value: float | None
    spec: dict[str, Any]
    git_commit: str | None
    git_dirty: bool | None
    versions: dict[str, str]
    device: str | None
    threads: int | None
    processes: int | None
    seconds: float | None
    compute_seconds: float | None
    images_per_second: float | None
    peak_memory_mb: float | None
    peak_device_memory_mb: float | None
    dataset_fingerprint: str | None
    dataset_composed_with: str | None


@dataclass(frozen=True, kw_only=True)
class Count:
    """How a cell of parameters or GFLOPs was counted, on the network of full size.

    value: of complexity.csv, None where it is missing; verdict: match, MISMATCH, not printed or
    the name of the discrepancy that explains the printed cell.
    """

    value: float | None
    network: dict[str, Any]
    how: str
    verdict: str | None
    explanation: str | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table: what it shows, what the paper prints, and where ours came from.

    shown: as in the table, '-' for nothing. mean, sd: over the n completed of `seeds` runs, %;
    both None for a count, and where a run diverged. Either `runs` or `count` is there.
    """

    table: str
    row: str
    label: str
    metric: Metric
    shown: str
    mean: float | None
    sd: float | None
    n: int
    seeds: int
    printed: str | None
    runs: list[RunRecord]
    count: Count | None


def cells(
    plan: Plan, table: str, runs: pd.DataFrame | None = None
) -> dict[tuple[str, Metric], Cell]:
    """Return every cell of a table by row and metric; `runs` is what `collect` returned."""
    runs = _collect(plan, table) if runs is None else runs
    lines = table_frame(plan, table, runs).to_dict("records")
    return {
        (row.key, metric): _cell(plan, row, metric, line, runs)
        for row, line in zip(plan.rows(table), lines, strict=True)
        for metric in plan.study.tables[table].columns
    }


def find_cell(plan: Plan, table: str, row: str, metric: str) -> Cell:
    """Return a cell. Raises UserError for an unknown table, row or metric."""
    where = f"study {plan.study.name}"
    if table not in plan.study.tables:
        raise unknown("table", table, plan.study.tables, where)
    if table not in plan.tables:
        raise UserError(
            f"{table}: expected one of the selected tables, {', '.join(plan.tables)}; select it "
            "with --set tables=all."
        )
    keys = [row.key for row in plan.rows(table)]
    if row not in keys:
        raise unknown("row", row, keys, f"{where}: {table}")
    columns = plan.study.tables[table].columns
    for known in columns:
        if known == metric:
            return cells(plan, table)[row, known]
    raise unknown("metric", metric, columns, f"{where}: {table}")


def _collect(plan: Plan, table: str) -> pd.DataFrame:
    """Return one table's runs, without reading the folders of the others."""
    specs = {place: spec for place, spec in plan.specs.items() if place[0] == table}
    return collect(dataclasses.replace(plan, tables=[table], specs=specs))


def _cell(plan: Plan, row: Row, metric: Metric, line: dict[Any, Any], runs: pd.DataFrame) -> Cell:
    measured = not KINDS[metric].counted
    mean, sd = (line[metric], line[f"{metric}_sd"]) if measured else (None, None)
    shown = plan.row_runs(row.table, row.key) if measured else []
    return Cell(
        table=row.table,
        row=row.key,
        label=row.label,
        metric=metric,
        shown=cell_text(metric, line, decimals(metric, plan.specs[row.table, row.key])),
        mean=None if isinstance(mean, str) or pd.isna(mean) else float(mean),
        sd=None if pd.isna(sd) else float(sd),
        n=int(line["seeds"]) if measured else 0,
        seeds=len(shown),
        printed=row.printed.get(metric),
        runs=[run_record(plan, run, runs.loc[run.path].to_dict(), metric) for run in shown],
        count=None if measured else _count(plan, row, metric, line[metric]),
    )


def run_record(
    plan: Plan, run: Run, line: Mapping[Any, Any], metric: Metric | None = None
) -> RunRecord:
    """Return what is known of a run; `line` is its line of what `collect` returned."""
    known: dict[str, Any] = {str(key): value for key, value in line.items() if pd.notna(value)}
    folder = plan.runs_folder / run.path

    def fact(key: str) -> Any:
        value = known.get(key)
        return value.item() if isinstance(value, np.generic) else value  # JSON knows no numpy

    return RunRecord(
        folder=str(folder),
        log=str(folder / LOG),
        seed=run.seed,
        value=fact(f"validation_{metric}"),
        spec=run.spec.model_dump(mode="json", exclude_none=True),
        versions={name: str(known[name]) for name in PACKAGES if name in known},
        **{
            field.name: fact(field.name)
            for field in dataclasses.fields(RunRecord)
            if field.name not in ("folder", "log", "seed", "value", "spec", "versions")
        },
    )


def _count(plan: Plan, row: Row, metric: Metric, value: float) -> Count:
    verdict = counted(plan, row.table)["verdict"].get(row.key)
    explanations = [
        d.explanation
        for d in plan.study.discrepancies.values()
        if d.table == row.table and row.key in d.rows and metric in d.metrics
    ]
    size = "224 px and 1000 classes"
    if row.detector:
        size = "{1} px and {0} classes".format(*PAPER_DATA[row.detector])
    what = (
        "parameters, in millions"
        if metric == "params_m"
        else "multiply-accumulates of convolutions and linear layers for one image, in 1e9"
    )
    return Count(
        value=None if pd.isna(value) else float(value),
        network={
            name: part.model_dump(mode="json", exclude_none=True)
            for name, part in (
                ("backbone", Backbone(name=row.backbone)),
                ("detector", Detector(name=row.detector) if row.detector else None),
                ("attention", plan.study.attentions[row.attention]),
            )
            if part
        },
        how=f"{what}, of the full-size network at {size}, whatever the tier; nothing was trained "
        "for it",
        verdict=verdict,
        explanation=" ".join(explanations) or None,
        source=str(plan.folder / COMPLEXITY_CSV),
    )
