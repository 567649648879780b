"""The rows of histories: those that are there, and those that trainings go on to write."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.runs.folder import HISTORY, read_outcome
from attention_ablation.runs.records import parse_history
from attention_ablation.study.expand import Plan

ENDED = ("completed", "diverged", "failed", "damaged")  # an interrupted run may be resumed
SECONDS = 2.0  # from one reading of the folders to the next


@dataclass(frozen=True)
class Rows:
    """Rows of a run's history, one for each epoch, that were not there before.

    run: its path below the runs' folder. anew: they are all of its rows, and replace what was
    written of it before. last: no more are expected.
    """

    run: str
    rows: list[dict[str, float]]
    anew: bool
    last: bool


def new_rows(plan: Plan, follow: bool) -> Iterator[Rows]:
    """Yield the rows of the plan's runs as they appear; with `follow` until all runs have ended."""
    read = dict.fromkeys(plan.runs, "")
    while True:
        # Before the histories are read, so that nothing is written after the last reading.
        ended = {
            run: not follow or read_outcome(plan.runs_folder / run).status in ENDED for run in read
        }
        for run, before in [*read.items()]:
            text, rows = _history(plan, run)
            # A history may be away for a while: Snakemake deletes it before a run is resumed.
            if rows and text != before:
                read[run] = text
                # A resumed run goes on before its last row; an evaluation may add columns to all.
                anew = not before or not text.startswith(before)
                known = 0 if anew else before.count("\n") - 1
                yield Rows(run, rows[known:], anew, ended[run])
            if ended[run]:  # and read for the last time
                del read[run]
        if not read:
            return
        time.sleep(SECONDS)


def _history(plan: Plan, run: str) -> tuple[str, list[dict[str, float]]]:
    """Return a history's whole lines and their rows, none where it is not there or not valid."""
    try:
        text = read_text(plan.runs_folder / run / HISTORY)
        whole = text[: text.rfind("\n") + 1]
        return whole, parse_history(whole)
    except UserError:
        return "", []
