"""How far a plan has come: runs done, running, failed, interrupted and missing."""

from collections import Counter
from pathlib import Path

from tabulate import tabulate

from attention_ablation.study.expand import Plan
from attention_ablation.study.runs import LOG, holder, read_outcome, steps_saved
from attention_ablation.study.spec import Run

STATES = ("completed", "diverged", "running", "failed", "interrupted", "missing")
LOG_LINES = 3


def state(folder: Path) -> str:
    """Return one of `STATES`: what a run's folder says of it now."""
    outcome: str = read_outcome(folder)["status"]
    if outcome in ("completed", "diverged"):
        return outcome
    if holder(folder) is not None:
        return "running"
    if outcome == "failed":
        return "failed"
    return "interrupted" if steps_saved(folder) else "missing"


def describe_status(plan: Plan) -> str:
    """Return the state of every table's runs as text, and why each failed run did."""
    states = {path: state(plan.runs_folder / path) for path in plan.runs}
    records = []
    for table in plan.tables:
        counts = Counter(states[run.path] for run in _distinct(plan.table_runs(table)))
        records.append([table, *(counts[name] for name in STATES)])
    counts = Counter(states.values())
    records.append(["all runs", *(counts[name] for name in STATES)])
    lines = [plan.summary, "", tabulate(records, ["", *STATES])]
    for name in ("running", "interrupted", "diverged", "failed"):
        chosen = [path for path in plan.runs if states[path] == name]
        if chosen:
            lines += ["", f"{name}:"]
        for path in chosen:
            lines += _run(plan.runs_folder / path, plan.runs[path], name)
    return "\n".join(lines)


def _run(folder: Path, run: Run, name: str) -> list[str]:
    if name == "diverged":
        return [f"  {folder}: after epoch {read_outcome(folder)['epochs']}"]
    if name == "failed":
        log = folder / LOG
        text = log.read_text("utf-8", errors="replace") if log.exists() else ""
        last = text.splitlines()[-LOG_LINES:]
        reason = read_outcome(folder)["reason"]
        return [f"  {folder}: {reason}", *(f"    {LOG}: {line}" for line in last)]
    share = 100 * steps_saved(folder) / run.spec.recipe.steps
    where = f" on {holder(folder)}" if name == "running" else ""
    return [f"  {folder}: {share:.0f} % of its steps saved{where}"]


def _distinct(runs: list[Run]) -> list[Run]:
    return list({run.path: run for run in runs}.values())
