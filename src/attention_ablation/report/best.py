"""Which cell of a group is the best: of ours by the seeds' spread, of the paper's as printed."""

from collections.abc import Iterator, Mapping

import pandas as pd

from attention_ablation.evidence.statistics import Contest, contest
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import Metric


def contested(
    plan: Plan, table: str, metric: Metric, outcomes: Mapping[str, pd.DataFrame]
) -> Iterator[Contest]:
    """Yield the best row of each group against the next one, where every run is there."""
    for group in plan.groups(table):
        values = {row.key: values_of(outcomes[row.key], metric) for row in group}
        # A row that is not complete leaves the winner open.
        if all(
            (outcomes[key]["status"] == "completed").all() and numbers.notna().all()
            for key, numbers in values.items()
        ):
            lists = {key: numbers.tolist() for key, numbers in values.items()}
            if found := contest(lists, higher_is_better=metric.better == "higher"):
                yield found


def best_printed(plan: Plan, table: str, metric: str) -> Iterator[str]:
    """Yield the row of each group with the best printed number."""
    best_of = max if plan.study.metrics[metric].better == "higher" else min
    for group in plan.groups(table):
        rows = [row for row in group if metric in row.printed]
        printed = {row.key: float(row.printed[metric]) for row in rows}
        one_recipe = len({(row.source, row.protocol) for row in rows}) == 1
        if len(printed) > 1 and (one_recipe or plan.study.metrics[metric].counted):
            yield best_of(printed, key=lambda key: printed[key])


def values_of(outcomes: pd.DataFrame, metric: Metric) -> "pd.Series[float]":
    """Return a metric of a row's runs, NaN for each that has none."""
    return outcomes.reindex(columns=[metric.source]).iloc[:, 0].astype(float)
