"""The page's lists below its tables: what was counted, all runs, and where they were made."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from attention_ablation.evidence.complexity import Counted, Counts
from attention_ablation.report.results import DASH, number
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import Metric

# What runs may differ in: a column of the runs frame, and its name on the page.
ENVIRONMENT = {
    "device": "Device", "git_commit": "Code, git commit", "git_dirty": "Uncommitted changes",
    "python": "Python", "torch": "torch", "torchvision": "torchvision", "processes": "Processes",
}  # fmt: skip
DECIMALS = {"train_loss": 3, "seconds": 1, "images_per_second": 1}


def complexity(plan: Plan, counts: Counts) -> dict[str, Any]:
    """Return the counts of every row beside what the paper prints."""
    columns: dict[str, Callable[[Counted], str]] = {
        "Row": lambda count: count.row,
        "Table": lambda count: number(count.table),
        "Params": lambda count: f"{count.params:,}",
        "paper (M)": lambda count: count.params_m_paper or DASH,
        "GFLOPs": lambda count: DASH if count.gflops is None else f"{count.gflops:.6f}",
        "paper": lambda count: count.gflops_paper or DASH,
        "Verdict": lambda count: count.verdict,
    }
    if not plan.study.has_printed:
        columns = {name: columns[name] for name in ("Row", "Table", "Params", "GFLOPs")}
    text = (
        f"Of the full-size networks, {plan.study.counted_on.size(None).text}"
        + ", and of detectors with the classes of their data set"
        * any(row.detector for row in plan.study.rows)
        + "; GFLOPs are multiply-accumulates."
        + " 'match': equal to what the paper prints when rounded to its digits."
        * plan.study.has_printed
    )
    rows = [[text_of(count) for text_of in columns.values()] for count in counts.values()]
    return {"name": "complexity", "title": "Parameters and GFLOPs of every row", "text": text,
            "headings": list(columns), "rows": rows, "numbers": [2, 3, 4, 5]}  # fmt: skip


def run_list(measured: dict[str, Metric], runs: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of every run; `measured` are the metrics of a run, by column."""
    columns = {
        "status": "Status", **{column: metric.title for column, metric in measured.items()},
        "train_loss": "Training loss", "seconds": "Wall time (s)",
        "images_per_second": "Images/s", "rows": "Shown as",
    }  # fmt: skip
    rows = [
        [path, *(fact(line.get(name), DECIMALS.get(name)) for name in columns)]
        for path, line in zip(runs.index, runs.to_dict("records"), strict=True)
    ]
    headings = ["Run and seed", *columns.values()]
    return {"name": "runs", "title": "All runs", "headings": headings, "rows": rows,
            "numbers": list(range(2, len(columns)))}  # fmt: skip


def environment(runs: pd.DataFrame) -> dict[str, Any]:
    """Return what the completed runs were made with, and how many were."""
    names = [name for name in ENVIRONMENT if name in runs]
    rows = []
    if names:
        counts = runs[runs["status"] == "completed"].groupby(names, dropna=False).size()
        for facts, count in counts.sort_values(ascending=False, kind="stable").items():
            values = facts if isinstance(facts, tuple) else (facts,)
            texts = dict(zip(names, map(fact, values), strict=True))
            if "git_commit" in texts:
                texts["git_commit"] = texts["git_commit"][:12]
            rows.append([str(count), *texts.values()])
    headings = ["Runs", *(ENVIRONMENT[name] for name in names)]
    return {"name": "environment", "title": "Where the runs were made", "headings": headings,
            "rows": rows, "numbers": [0]}  # fmt: skip


def energy_used(joules: "pd.Series[float]") -> str:
    """Return what the GPUs of the runs used together."""
    kwh = joules.sum() / 3.6e6
    runs = f"{len(joules)} run{'s' * (len(joules) != 1)}"
    return f"GPUs used {kwh:.3g} kWh in {runs}, by their own counters." if len(joules) else ""


def fact(value: Any, decimals: int | None = None) -> str:
    """Return the text of a value that a run recorded."""
    if value is None or pd.isna(value):
        return DASH
    if decimals is not None and not isinstance(value, str):
        return f"{value:.{decimals}f}"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)
