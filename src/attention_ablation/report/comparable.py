"""What finished trainings say about whether the rows of a table may be compared."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.study.config import Row
from attention_ablation.study.confounds import CHANGES_NUMBERS, NOTED, differing
from attention_ablation.study.expand import Plan


def confounds(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Return a line for each fact that changes numbers and differs among rows that are compared."""
    return [
        line
        for group in plan.groups(table)
        for line in differing(_facts(plan, group, runs, CHANGES_NUMBERS))
    ]


def conditions(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Return a line for each other fact in which a table's trainings differ."""
    return differing(_facts(plan, plan.rows(table), runs, NOTED))


def check_comparable(plan: Plan, table: str, runs: pd.DataFrame) -> None:
    """Raise UserError where rows that are compared were trained so that their numbers differ."""
    if lines := confounds(plan, table, runs):
        found = "".join(f"\n  {line}" for line in lines)
        raise UserError(
            f"{table}: expected the same for all trainings that are compared, got{found}\nDelete "
            f"the folders of those that are to change, below {plan.runs_folder}, and train them "
            "like the others: with as many processes, on the same data."
        )


def _facts(
    plan: Plan, rows: Iterable[Row], runs: pd.DataFrame, keys: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return what is known of the trainings whose numbers are shown, by row and seed."""
    names = {}
    for row in rows:
        for run in plan.row_runs(row.table, row.key):
            seed = f" seed {run.seed}" * (len(plan.seeds) > 1)
            names[f"{row.key}{seed}"] = run.path
    known = runs.loc[runs["status"].isin(["completed", "diverged"]), runs.columns.isin(keys)]
    facts: dict[Any, dict[Any, Any]] = known.to_dict("index")
    return {
        # What a run did not record cannot differ.
        name: {str(k): v for k, v in facts[path].items() if pd.notna(v)}
        for name, path in names.items()
        if path in facts
    }
