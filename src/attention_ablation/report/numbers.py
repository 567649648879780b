"""A table's numbers: from the runs frame to a line for each row, and how a number is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attention_ablation.evidence.counted import counted
from attention_ablation.spec.spec import DetectionSpec, Spec
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS, METRICS, Metric

DASH = "-"


@dataclass(frozen=True)
class Shown:
    """A cell's text, whether it is the best, and a sign after it; each format has its own bold."""

    text: str
    best: bool = False
    mark: str = ""


def table_frame(plan: Plan, table: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table's numbers, a line for each row, in the columns of its CSV.

    `seeds` counts completed runs; errors and mAPs are their mean and sample standard deviation in
    percent.
    A row with a diverged run says 'diverged k/n' in place of a mean over the rest.
    """
    sizes = counted(plan, table)
    records = []
    for row in plan.rows(table):
        outcomes = runs.loc[[run.path for run in plan.row_runs(table, row.key)]]
        done = outcomes[outcomes["status"] == "completed"]
        diverged = int((outcomes["status"] == "diverged").sum())
        record: dict[str, Any] = {
            "row": row.key,
            "label": row.label,
            "backbone": row.backbone,
            **({"detector": row.detector} if row.detector else {}),
            "attention": row.attention,
            "seeds": len(done),
        }
        for metric in written(plan, table):
            if not KINDS[metric].counted:
                values = done.get(f"validation_{metric}", pd.Series(dtype=float)).astype(float)
                record[metric] = round(values.mean(), 4)
                record[f"{metric}_sd"] = round(values.std(), 4)
                if diverged:
                    record[metric] = f"diverged {diverged}/{len(outcomes)}"
                    record[f"{metric}_sd"] = float("nan")
            else:
                record[metric] = sizes[metric].get(row.key, float("nan"))
            record[f"{metric}_paper"] = row.printed.get(metric, "")
        records.append(record)
    return pd.DataFrame(records)


def written(plan: Plan, table: str) -> list[Metric]:
    """Return the metrics in a table's CSV, be they shown in the table or not."""
    columns = plan.study.tables[table].columns
    if any(row.detector for row in plan.rows(table)):
        return [name for name in METRICS if name == "params_m" or name in columns]
    return [name for name in METRICS if KINDS[name].task != "detection"]


def cell_text(metric: Metric, line: Mapping[Any, Any], decimals: int) -> str:
    """Return a cell as the tables show it, from a line of `table_frame`."""
    value, spread = line[metric], line.get(f"{metric}_sd")
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return DASH
    return f"{value:.{decimals}f}" + (f" ± {spread:.{decimals}f}" if pd.notna(spread) else "")


def decimals(metric: Metric, spec: Spec | DetectionSpec) -> int:
    """Return how many digits of a metric are shown."""
    if KINDS[metric].task == "detection":
        return 1  # as the paper's
    if KINDS[metric].task == "classification":
        # An error of n images has steps of 100/n percent: no digit below that.
        images = spec.recipe.dataset.validation_images
        return 2 if images >= 10_000 else 1
    return 2 if metric == "params_m" else 3
