"""The runs under way as a live table, from their folders alone: also where they run elsewhere."""

import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.runs.folder import HISTORY, STATES, Outcome, read_outcome
from attention_ablation.runs.records import parse_history
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan

if TYPE_CHECKING:
    from rich.console import Group

UNENDED = {"running", "interrupted", "missing"}
WITH_REASON = ("failed", "damaged", "interrupted")
MOST_REASONS = 5
FRAME = 6  # lines around the rows
WIDTH = 100


@dataclass(frozen=True)
class Progress:
    """How far a run has come: epochs that are done, and the last one's numbers.

    validation: the last evaluation's, an error or mAP. seconds_left: by the run's own mean epoch.
    """

    epoch: int
    loss: float
    validation: str
    images_per_second: float
    seconds_left: float


def read_progress(folder: Path, run: Run, now: float) -> Progress | None:
    """Return how far a run has come at a time, None before its first epoch is done."""
    try:
        rows = parse_history(read_text(folder / HISTORY))
        written = (folder / HISTORY).stat().st_mtime
    except (UserError, OSError):
        return None
    if not rows:
        return None
    last, pace = rows[-1], sum(row["seconds"] for row in rows) / len(rows)
    # An epoch that seems to take longer than the others may have been interrupted.
    under_way = min(max(now - written, 0.0), pace)
    return Progress(
        epoch=len(rows),
        loss=last["train_loss"],
        validation=_validation(rows),
        images_per_second=last["images_per_second"],
        seconds_left=max(0.0, (run.spec.recipe.epochs - len(rows)) * pace - under_way),
    )


def _validation(rows: list[dict[str, float]]) -> str:
    for row in reversed(rows):  # not every epoch is evaluated
        for name, suffix in (("validation_top1_error", "%"), ("validation_map_50", "mAP@.5")):
            if not math.isnan(value := row.get(name, math.nan)):
                return f"{value:.1f} {suffix}"
    return "-"


class Watch:
    """Reads the plan's run folders again and again; those that ended with a result only once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ended: dict[str, Outcome] = {}
        self.labels: dict[str, str] = {}
        for table, key in plan.specs:
            label = next(row.label for row in plan.rows(table) if row.key == key)
            for run in plan.row_runs(table, key):
                seed = f", seed {run.seed}" * (len(plan.seeds) > 1)
                self.labels.setdefault(run.path, f"{table} {label}{seed}")

    def read(self) -> dict[str, Outcome]:
        """Return what became of every run by now."""
        found = {
            path: self.ended.get(path) or read_outcome(self.plan.runs_folder / path)
            for path in self.plan.runs
        }
        self.ended = {path: outcome for path, outcome in found.items() if outcome.metrics}
        return found

    def view(self, outcomes: dict[str, Outcome], width: int, most_rows: int) -> "Group":
        """Return what is to be shown: a row for each run under way, and counts of the others.

        A label is cut where a row would be longer than `width`; an error is cut by the console.
        """
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, width=width)
        table.add_column("running", no_wrap=True, overflow="ellipsis", style="bold", ratio=1)
        for heading in ("epoch", "loss", "validation", "images/s", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        running = [path for path, outcome in outcomes.items() if outcome.status == "running"]
        for path in running[:most_rows]:
            table.add_row(self._label(path), *self._cells(path))
        lines = [Text(f"and {len(running) - most_rows} more")] if len(running) > most_rows else []
        counts = Counter(outcome.status for outcome in outcomes.values())
        said = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
        lines += [Text(""), Text(f"{len(outcomes)} runs: {said}.")]
        lines += [
            Text(line, no_wrap=True, overflow="ellipsis", style="red")
            for line in self._reasons(outcomes)
        ]
        return Group(*[table] * bool(running), *lines)

    def _label(self, path: str) -> str:
        return self.labels.get(path, path)

    def _cells(self, path: str) -> tuple[str, ...]:
        run = self.plan.runs[path]
        epochs = run.spec.recipe.epochs
        progress = read_progress(self.plan.runs_folder / path, run, time.time())
        if progress is None:
            return (f"0/{epochs}", *"----")
        return (
            f"{progress.epoch}/{epochs}",
            f"{progress.loss:.3f}",
            progress.validation,
            f"{progress.images_per_second:,.0f}",
            _time(progress.seconds_left),
        )

    def _reasons(self, outcomes: dict[str, Outcome]) -> list[str]:
        lines = [
            f"{outcome.status}: {self._label(path)}: {outcome.reason}"
            for path, outcome in outcomes.items()
            if outcome.status in WITH_REASON and outcome.reason
        ]
        more = len(lines) - MOST_REASONS
        return lines[:MOST_REASONS] + [f"and {more} more; see `make status`"] * (more > 0)


def watch(plan: Plan, seconds: float) -> None:
    """Show the plan's runs until all have ended, read anew after so many seconds.

    Ctrl-C ends it as well. Where no terminal shows it, what is there now is printed once.
    """
    from rich.console import Console
    from rich.live import Live

    console, runs = Console(highlight=False), Watch(plan)
    outcomes = runs.read()
    if not console.is_terminal:
        # Wide enough for every reason.
        Console(highlight=False, width=500).print(runs.view(outcomes, WIDTH, len(outcomes)))
        return

    def view() -> "Group":
        most_rows = max(1, console.height - FRAME - MOST_REASONS)
        return runs.view(outcomes, min(WIDTH, console.width), most_rows)

    try:
        with Live(view(), console=console, auto_refresh=False) as live:
            while any(outcome.status in UNENDED for outcome in outcomes.values()):
                time.sleep(seconds)
                outcomes = runs.read()
                live.update(view(), refresh=True)
    except KeyboardInterrupt:
        pass


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours:
        return f"{hours} h {minutes:02d}"
    return f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"
