"""How far a plan has come: runs done, running, failed, damaged, interrupted and missing."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes
from attention_ablation.runs.folder import LOG, SPEC, STATES, Outcome, read_outcome, steps_saved
from attention_ablation.runs.lock import read_lock
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan

LOG_LINES = 3
EXPLAINED = ("running", "interrupted", "diverged", "failed", "damaged")


def describe_status(plan: Plan) -> str:
    """Return the state of every table's runs as text, and why each failed run did."""
    outcomes = {path: read_outcome(plan.runs_folder / path) for path in plan.runs}

    def line(title: str, paths: Iterable[str]) -> list[object]:
        counts = Counter(outcomes[path].status for path in set(paths))
        return [title, *(counts[name] for name in STATES)]

    records = [line(name, (run.path for run in plan.table_runs(name))) for name in plan.tables]
    table = tabulate([*records, line("all runs", plan.runs)], ["", *STATES])
    lines = [plan.summary, "", table]
    for name in EXPLAINED:
        chosen = [path for path in plan.runs if outcomes[path].status == name]
        lines += ["", f"{name}:"] * bool(chosen)
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
        return [f"  {folder}: {outcome.reason}", *_log_end(folder)]
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
    return [f"    {LOG}: {line}" for line in text.splitlines()[-LOG_LINES:]]
