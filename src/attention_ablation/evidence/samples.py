"""What finished runs say of rows that are compared: values by seed, and how far they scatter."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attention_ablation.base.model import canonical_json
from attention_ablation.evidence.statistics import Mean, Spread, added, spread_of
from attention_ablation.study.claims import Pair
from attention_ablation.study.confounds import CHANGES_NUMBERS
from attention_ablation.study.expand import Plan

Place = tuple[str, str]  # table and row key


@dataclass(frozen=True)
class Sample:
    """The differences of a comparison, one for each seed that all of its rows completed.

    obstacle: why there are none. hypothesis: the same where the same is asked of the same runs,
    None where nothing can be asked of any.
    """

    differences: tuple[float, ...] = ()
    spread: Spread | None = None
    obstacle: str = ""
    hypothesis: Hashable = None

    @property
    def mean(self) -> Mean | None:
        """Their mean with its spread, None where that is not known."""
        if self.spread is None:
            return None
        return Mean(float(np.mean(self.differences)), len(self.differences), self.spread)


class Samples:
    """The runs of a plan, as rows' values by seed; `runs` is what `report.collect` returns."""

    def __init__(self, plan: Plan, runs: pd.DataFrame) -> None:
        self.plan = plan
        self.runs = runs
        self.alike = alike(plan)

    def of(self, pair: Pair) -> Sample:
        """Return what the runs say of a comparison."""
        column = self.plan.study.metrics[pair.metric].source
        completed = self.runs["status"] == "completed"
        known = column in self.runs and self.runs.loc[completed, column].notna().any()
        if not known and (completed.any() or column not in self.runs):
            return Sample(obstacle=self._missing(pair, column))
        both = pd.concat([self._lines(row) for row in pair.rows])
        unlike = [k for k in CHANGES_NUMBERS if k in both and both[k].dropna().nunique() > 1]
        if unlike:
            return Sample(obstacle=f"not trained alike: {', '.join(unlike)}")
        asked = self._hypothesis(pair)
        # What trains at some seeds only has no mean: averaging the rest would select the survivors,
        # and a divergence is no error rate that could contradict anything.
        if "diverged" in set(both["status"]):
            return Sample(obstacle="a run diverged", hypothesis=asked)
        values = pd.concat([self._values(row, column) for row in pair.rows], axis=1, join="inner")
        if values.empty:
            return Sample(obstacle=self._missing(pair, column))
        array, seeds = values.to_numpy().T, list(values.index)
        difference, spread = array[0] - array[1], self._spread(pair.rows[:2], column, seeds)
        if len(array) == 4:
            difference = difference - (array[2] - array[3])
            spread = added(spread, self._spread(pair.rows[2:], column, seeds))
        return Sample(tuple(difference.tolist()), spread, hypothesis=asked)

    def _missing(self, pair: Pair, column: str) -> str:
        """Return the rows that no run has numbers of, or the seeds that each row has."""
        named = dict(zip(pair.names, pair.rows, strict=True))
        if not_run := [n for n, row in named.items() if self._completed(row).empty]:
            return f"no completed run of {' and '.join(not_run)}"
        seeds = {n: list(self._values(row, column).index) for n, row in named.items()}
        if without := [name for name, found in seeds.items() if not found]:
            return f"no run of {' and '.join(without)} has {column}"
        each = (f"{name}: {', '.join(map(str, found))}" for name, found in seeds.items())
        return f"no seed has all rows ({'; '.join(each)})"

    def _hypothesis(self, pair: Pair) -> Hashable:
        """Return what a test is: its runs, a metric and where the predicate turns."""
        ids = [self.plan.specs[row].run_id for row in pair.rows]
        comparison = pair.comparison
        # Of two rows, whichever is first.
        sign = -1 if len(ids) == 2 and ids[0] > ids[1] else 1
        turns = sorted(sign * cut for cut in comparison.cuts)
        margin = comparison.margin if comparison.directed else None
        return (*ids[::sign], pair.metric, tuple(turns), margin)

    def _spread(self, rows: Sequence[Place], column: str, seeds: list[int]) -> Spread | None:
        """Return the spread of two rows' difference, pooled with the rows that are like both."""
        pair = [self._values(row, column)[seeds] for row in rows]
        ids = {self.plan.specs[row].run_id for row in rows}
        others = []
        if self.alike[rows[0]] == self.alike[rows[1]]:
            more = [row for row in self.alike[rows[0]] if self.plan.specs[row].run_id not in ids]
            values = (self._values(row, column) for row in more)
            others = [v[seeds] for v in values if set(seeds) <= set(v.index)]
        return spread_of(np.array(pair), np.array(others))

    def _lines(self, row: Place) -> pd.DataFrame:
        return self.runs.loc[[run.path for run in self.plan.row_runs(*row)]]

    def _completed(self, row: Place) -> pd.DataFrame:
        lines = self._lines(row)
        return lines[lines["status"] == "completed"].set_index("seed")

    def _values(self, row: Place, column: str) -> "pd.Series[float]":
        # As floats by way of pandas' own, which knows NA; a column that no run has is empty.
        found = self._completed(row).reindex(columns=[column])[column]
        return found.astype("Float64").astype(float).dropna()


def alike(plan: Plan) -> dict[Place, list[Place]]:
    """Return for each row the rows that differ from it in their gates only, each run once."""
    groups: dict[str, dict[str, Place]] = {}
    keys = {}
    for place, spec in plan.specs.items():
        beside = spec.model_dump(mode="json", exclude={"attention", "initial"})
        keys[place] = canonical_json(beside)
        groups.setdefault(keys[place], {})[spec.run_id] = place
    return {place: list(groups[key].values()) for place, key in keys.items()}
