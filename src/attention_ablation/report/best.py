"""Which row of a table is best: ours where it is resolved, and the paper's as printed."""

import pandas as pd

from attention_ablation.evidence.statistics import Contest, contest
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS, Metric


def measured(plan: Plan, table: str) -> list[Metric]:
    """Return the columns of a table that come out of trainings."""
    return [name for name in plan.study.tables[table].columns if not KINDS[name].counted]


def contests(plan: Plan, table: str, metric: Metric, runs: pd.DataFrame) -> list[Contest]:
    """Return the best row of each group against the next one, where every run is there."""
    contests = []
    for group in plan.groups(table):
        values = {}
        for row in group:
            outcomes = runs.loc[[run.path for run in plan.row_runs(table, row.key)]]
            numbers = outcomes.reindex(columns=[f"validation_{metric}"]).iloc[:, 0].astype(float)
            if (outcomes["status"] == "completed").all() and numbers.notna().all():
                values[row.key] = numbers.tolist()
        # A row that is not complete leaves the winner open.
        higher = KINDS[metric].higher_is_better
        if len(values) == len(group) and (found := contest(values, higher_is_better=higher)):
            contests.append(found)
    return contests


def best_ours(plan: Plan, table: str, runs: pd.DataFrame) -> set[tuple[str, str]]:
    """Return our best cells that are resolved, by metric and row."""
    return {
        (metric, found.first)
        for metric in measured(plan, table)
        for found in contests(plan, table, metric, runs)
        if found.resolved
    }


def best_printed(plan: Plan, table: str) -> set[tuple[str, str]]:
    """Return the best printed cells, by metric and row."""
    best: set[tuple[str, str]] = set()
    for group in plan.groups(table):
        for metric in measured(plan, table):
            best_of = max if KINDS[metric].higher_is_better else min
            printed = {
                row.key: float(row.printed[metric]) for row in group if metric in row.printed
            }
            if len(printed) > 1:
                best.add((metric, best_of(printed, key=lambda key: printed[key])))
    return best
