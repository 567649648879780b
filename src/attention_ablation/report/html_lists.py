"""What the report page lists besides tables: counts, runs, and where the runs were made."""

import json
from typing import Any

import pandas as pd

from attention_ablation.evidence.complexity import Counts
from attention_ablation.report.results import DASH, number, run_metrics
from attention_ablation.report.where import run_facts, run_record
from attention_ablation.study.expand import Plan

# What runs may differ in: a column of the runs frame, and its name on the page.
ENVIRONMENT = {
    "device": "Device", "git_commit": "Code, git commit", "git_dirty": "Uncommitted changes",
    "python": "Python", "torch": "torch", "torchvision": "torchvision", "processes": "Processes",
}  # fmt: skip
DECIMALS = {"train_loss": 3, "seconds": 1, "images_per_second": 1}


def complexity(plan: Plan, counts: Counts) -> dict[str, Any]:
    """Return the list of all counts."""
    rows = [
        [count.row, number(count.table), f"{count.params:,}", count.params_m_paper or DASH,
         DASH if count.gflops is None else f"{count.gflops:.6f}", count.gflops_paper or DASH,
         count.verdict]
        for count in counts.values()
    ]  # fmt: skip
    text = (
        f"Of the full-size networks, {plan.study.counted_on.size(None).text}, and of detectors "
        "with the classes of the paper's data set; GFLOPs are multiply-accumulates. "
        "'match': equal to what the paper prints when rounded to its digits."
    )
    headings = ["Row", "Table", "Params", "paper (M)", "GFLOPs", "paper", "Verdict"]
    return {"name": "complexity", "title": "Parameters and GFLOPs of every row", "text": text,
            "headings": headings, "rows": rows, "numbers": [2, 3, 4, 5]}  # fmt: skip


def run_list(plan: Plan, runs: pd.DataFrame) -> dict[str, Any]:
    """Return the list of all runs."""
    measured = {column: metric.title for column, metric in run_metrics(plan, runs).items()}
    columns = {
        "status": "Status", **measured, "train_loss": "Training loss",
        "seconds": "Wall time (s)", "images_per_second": "Images/s", "rows": "Shown as",
    }  # fmt: skip
    rows = [
        [path, *(_fact(line.get(name), DECIMALS.get(name)) for name in columns)]
        for path, line in zip(runs.index, runs.to_dict("records"), strict=True)
    ]
    headings = ["Run and seed", *columns.values()]
    return {"name": "runs", "title": "All runs", "headings": headings, "rows": rows,
            "numbers": list(range(2, len(columns)))}  # fmt: skip


def environment(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the list of what the completed runs were made with."""
    names = [name for name in ENVIRONMENT if name in runs]
    rows = []
    if names:
        counts = runs[runs["status"] == "completed"].groupby(names, dropna=False).size()
        for key, count in counts.sort_values(ascending=False, kind="stable").items():
            values: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
            facts = dict(zip(names, map(_fact, values), strict=True))
            if "git_commit" in facts:
                facts["git_commit"] = facts["git_commit"][:12]
            rows.append([str(count), *facts.values()])
    headings = ["Runs", *(ENVIRONMENT[name] for name in names)]
    return {"name": "environment", "title": "Where the runs were made", "headings": headings,
            "rows": rows, "numbers": [0]}  # fmt: skip


def run_provenance(plan: Plan, runs: pd.DataFrame, path: str) -> dict[str, Any]:
    """Return what a cell's dialog shows of a run."""
    line = runs.loc[path].to_dict()
    record = run_record(plan, plan.runs[path], line)
    reason = f": {record['reason']}" if record["reason"] else ""
    outcome = [("status", record["status"] + reason)]
    for column, metric in run_metrics(plan, runs).items():
        if pd.notna(line[column]):
            outcome.append((metric.heading, f"{_fact(line[column])}{metric.suffix}"))
    spec = json.dumps(record["spec"], indent=2)
    return {"facts": [*outcome, *run_facts(record)], "spec": spec}


def _fact(value: Any, decimals: int | None = None) -> str:
    if value is None or pd.isna(value):
        return DASH
    if decimals is not None and not isinstance(value, str):
        return f"{value:.{decimals}f}"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)
