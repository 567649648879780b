"""How far a plan has come: runs done, running, failed, damaged, interrupted and missing."""

from collections import Counter
from pathlib import Path

from tabulate import tabulate

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes
from attention_ablation.runs.folder import LOG, SPEC, STATES, Outcome, read_outcome, steps_saved
from attention_ablation.runs.lock import read_lock
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan

LOG_LINES = 3


def describe_status(plan: Plan) -> str:
    """Return the state of every table's runs as text, and why each failed run did."""
    outcomes = {path: read_outcome(plan.runs_folder / path) for path in plan.runs}
    states = {path: outcome.status for path, outcome in outcomes.items()}
    records = []
    for table in plan.tables:
        counts = Counter(states[run.path] for run in _distinct(plan.table_runs(table)))
        records.append([table, *(counts[name] for name in STATES)])
    counts = Counter(states.values())
    records.append(["all runs", *(counts[name] for name in STATES)])
    lines = [plan.summary, "", tabulate(records, ["", *STATES])]
    for name in ("running", "interrupted", "diverged", "failed", "damaged"):
        chosen = [path for path in plan.runs if states[path] == name]
        if chosen:
            lines += ["", f"{name}:"]
        for path in chosen:
            lines += _run(plan.runs_folder / path, plan.runs[path], outcomes[path])
    return "\n".join(lines)


def _run(folder: Path, run: Run, outcome: Outcome) -> list[str]:
    if outcome.metrics:
        return [f"  {folder}: after epoch {outcome.metrics.epochs}"]
    if outcome.status == "damaged":
        train = f"`attention-ablation train {folder / SPEC}`"
        remedy = f"{train} writes the file again from the others, or trains again"
        return [f"  {folder}: {outcome.reason}; {remedy}"]
    if outcome.status == "failed":
        last = [f"    {LOG}: {line}" for line in _log_end(folder)]
        return [f"  {folder}: {outcome.reason}", *last]
    share = 100 * steps_saved(folder) / run.spec.recipe.steps
    saved = f"  {folder}: {share:.0f} % of its steps saved"
    if outcome.status == "running":
        return [f"{saved} by {read_lock(folder).holder or 'a process'}"]
    return [saved + (f"; {outcome.reason}" if outcome.reason else "")]


def _log_end(folder: Path) -> list[str]:
    try:
        text = read_bytes(folder / LOG).decode(errors="replace")
    except UserError:
        return []
    return text.splitlines()[-LOG_LINES:]


def _distinct(runs: list[Run]) -> list[Run]:
    return list({run.path: run for run in runs}.values())
