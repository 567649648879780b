"""A row's numbers, of the runs that completed."""

from attention_ablation.runs.folder import read_outcome
from attention_ablation.study.config import Row
from attention_ablation.study.expand import Plan


def row_values(plan: Plan, row: Row, source: str) -> list[float]:
    """Return a number of metrics.json, by its name there, of each seed that has it."""
    found = []
    for run in plan.row_runs(row.table, row.key):
        facts = read_outcome(plan.runs_folder / run.path).metrics
        value = facts.recorded.get(source) if facts else None
        if facts and facts.status == "completed" and value is not None:
            found.append(float(value))
    return found


def any_diverged(plan: Plan, row: Row) -> bool:
    """Whether one of a row's runs diverged, so that a mean of the others would flatter it."""
    runs = plan.row_runs(row.table, row.key)
    return any(read_outcome(plan.runs_folder / run.path).status == "diverged" for run in runs)
