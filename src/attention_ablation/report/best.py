"""Which row of a table is best: ours where it is resolved, and the paper's as printed."""

import pandas as pd

from attention_ablation.analysis.statistics import Contest, contest
from attention_ablation.report.numbers import ERRORS
from attention_ablation.study.config import Metric
from attention_ablation.study.expand import Plan


def contests(plan: Plan, table: str, metric: Metric, runs: pd.DataFrame) -> list[Contest]:
    """Return the best row of each group against the next one, where every run is there."""
    contests = []
    for group in plan.groups(table):
        values = {}
        for row in group:
            outcomes = runs.loc[[run.path for run in plan.row_runs(table, row.key)]]
            if (outcomes["status"] == "completed").all():
                values[row.key] = outcomes[f"validation_{metric}"].astype(float).tolist()
        # A row that is not complete leaves the winner open.
        if len(values) == len(group) and (found := contest(values)):
            contests.append(found)
    return contests


def best_ours(plan: Plan, table: str, runs: pd.DataFrame) -> set[tuple[str, str]]:
    """Return our best cells that are resolved, by metric and row."""
    return {
        (metric, found.first)
        for metric in ERRORS
        for found in contests(plan, table, metric, runs)
        if found.resolved
    }


def best_printed(plan: Plan, table: str) -> set[tuple[str, str]]:
    """Return the best printed cells, by metric and row."""
    best: set[tuple[str, str]] = set()
    for group in plan.groups(table):
        for metric in ERRORS:
            printed = {
                row.key: float(row.printed[metric]) for row in group if metric in row.printed
            }
            if len(printed) > 1:
                best.add((metric, min(printed, key=lambda key: printed[key])))
    return best
