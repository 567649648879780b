"""The claim ledger: what our runs and the paper's own cells say of each of the paper's claims."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from attention_ablation.evidence import statistics
from attention_ablation.evidence.complexity import Counts, read_counts
from attention_ablation.study.claims import Claim, Pair
from attention_ablation.study.config import Study
from attention_ablation.study.confounds import CHANGES_NUMBERS
from attention_ablation.study.expand import Plan
from attention_ablation.study.references import COLUMNS, read_curve

Verdict = Literal["supported", "contradicted", "undecided", "not run"]
PaperVerdict = Literal["holds", "does not hold", "not printed"]


@dataclass(frozen=True)
class JudgedPair:
    """A comparison with all that is said of it: a line of claims.csv and of the page.

    There are `differences`, the first row's value less the second's in the metric's unit, one for
    each seed that both rows completed; or `exact`, of counts; or neither, because of `obstacle`.

    hypothesis: of a comparison that is tested; the same where the same is asked of the same runs.
    reference: whose published curves it is made on, where it is not made on our runs.
    p_adjusted: the p-value of its test, adjusted for the whole `family` of so many tests.
    """

    pair: Pair
    differences: tuple[float, ...] = ()
    exact: Decimal | None = None
    obstacle: str = ""
    hypothesis: Hashable = None
    reference: str = ""
    paper_difference: Decimal | None = None
    p_adjusted: float | None = None
    family: int = 0

    @property
    def text(self) -> str:
        """The comparison in words, with whose published curves it is made on."""
        return self.pair.text + f" ({self.reference})" * bool(self.reference)

    @property
    def n(self) -> int:
        return len(self.differences) if self.exact is None else 1

    @property
    def difference(self) -> float | None:
        if self.exact is not None:
            return float(self.exact)
        return float(np.mean(self.differences)) if self.differences else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t-interval of this comparison by itself."""
        return statistics.t_interval(self.differences)

    @property
    def p_value(self) -> float | None:
        """The adjusted p-value, None where nothing could be tested."""
        return self.p_adjusted if self.interval else None

    @property
    def seeds_needed(self) -> int | Literal[">1000"] | None:
        """How many seeds would decide it, at the level of one test of the ledger."""
        level = statistics.ALPHA / max(self.family, 1)
        return statistics.seeds_needed(self.differences, self.pair.comparison.cuts, level)

    @property
    def verdict(self) -> Verdict:
        """What our runs say."""
        return self._decision[0]

    @property
    def reason(self) -> str:
        """Why there is no decision, empty where there is one."""
        return self._decision[1]

    @cached_property
    def _decision(self) -> tuple[Verdict, str]:
        if self.reference:
            return "undecided", "one published run of each"
        if self.exact is not None:
            holds = self.pair.comparison.holds(self.exact)
            return ("supported" if holds else "contradicted"), ""
        if self.p_adjusted is None:
            return "not run", self.obstacle
        if self.n < 2:
            return "undecided", self.obstacle or "one seed"
        if self.p_adjusted > statistics.ALPHA:
            spread = statistics.has_spread(self.differences)
            return "undecided", f"p = {self.p_adjusted:.2g}" if spread else "the same in every seed"
        low, high = map(float, self.pair.comparison.bounds)
        inside = low < np.mean(self.differences) < high
        return ("supported" if inside else "contradicted"), ""

    @property
    def paper_verdict(self) -> PaperVerdict:
        """Whether it holds in the paper's cells as printed; equal ones are neither way apart."""
        if self.paper_difference is None:
            return "not printed"
        holds = self.pair.comparison.holds(self.paper_difference)
        return "holds" if holds else "does not hold"


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its comparisons; no verdict counts the `published` ones, on others' curves."""

    key: str
    claim: Claim
    pairs: list[JudgedPair]
    published: list[JudgedPair]

    @property
    def verdict(self) -> Verdict:
        """Supported if all comparisons are, contradicted if any is, not run if none is run."""
        found = {pair.verdict for pair in self.pairs}
        if "contradicted" in found:
            return "contradicted"
        return found.pop() if len(found) == 1 else "undecided"

    @property
    def paper_verdict(self) -> PaperVerdict:
        """Whether all that the paper prints of the claim holds."""
        found = {pair.paper_verdict for pair in self.pairs}
        if "does not hold" in found:
            return "does not hold"
        return "holds" if "holds" in found else "not printed"


@dataclass(frozen=True)
class Ledger:
    """All claims of a study, judged together; `family` is how many tests were corrected for."""

    claims: list[JudgedClaim]
    family: int

    @property
    def method(self) -> str:
        """How verdicts come about, in two sentences."""
        return (
            "Rows are compared by the differences of their runs, paired by seed: the interval is "
            "the 95 % t-interval of the mean difference, of each comparison by itself, and a "
            "comparison is supported or contradicted, by its direction, where the p-value of the "
            f"two-sided paired t-test is at most {statistics.ALPHA} after Holm's correction for "
            f"all {self.family} distinct comparisons of this ledger that have runs. Parameters and "
            "GFLOPs are counted and so compared exactly; a claim is supported where all of its "
            "comparisons are, contradicted where one is, not run where none is, and undecided "
            "otherwise, as with one seed."
        )


def ledger(plan: Plan, runs: pd.DataFrame) -> Ledger:
    """Judge every claim of the plan's study; `runs` is what `report.collect.collect` returns."""
    counts, claims = read_counts(plan), plan.study.claims
    ours = adjusted(
        [_judge(plan, pair, runs, counts) for claim in claims.values() for pair in claim.pairs()]
    )
    rest = iter(ours)
    judged = [
        JudgedClaim(
            key,
            claim,
            pairs=[next(rest) for _ in claim.pairs()],
            published=[found for pair in claim.pairs() for found in _published(plan, pair)],
        )
        for key, claim in claims.items()
    ]
    return Ledger(judged, ours[0].family if ours else 0)


def _judge(plan: Plan, pair: Pair, runs: pd.DataFrame, counts: Counts) -> JudgedPair:
    rows = (pair.first, pair.second)
    judged = JudgedPair(pair, paper_difference=paper_difference(plan.study, pair))
    if outside := [table for table, key in rows if (table, key) not in plan.specs]:
        return replace(judged, obstacle=f"{outside[0]} is not selected")
    metric = plan.study.metrics[pair.metric]
    if not metric.counted:
        return replace(judged, **_of_runs(plan, pair, runs))
    exact = []
    for table, key in rows:
        count = counts.get((table, key))
        value = count.values[metric.source] if count else None
        if value is None:
            return replace(judged, obstacle=f"{key} of {table} is not counted yet")
        exact.append(Decimal(str(value)))
    return replace(judged, exact=pair.comparison.difference(*exact))


def _published(plan: Plan, pair: Pair) -> Iterator[JudgedPair]:
    """Yield the comparison of the last errors of each reference that has both rows' curves."""
    rows = [f"{table}:{key}" for table, key in (pair.first, pair.second)]
    for reference in plan.study.references.values():
        files = {curve.row: curve.file for curve in reference.curves.values()}
        if pair.metric in COLUMNS and set(rows) <= set(files):
            curves = [read_curve(plan.study_folder / files[row]) for row in rows]
            errors = [Decimal(str(curve[pair.metric][-1])) for curve in curves]
            difference = float(pair.comparison.difference(*errors))
            paper = paper_difference(plan.study, pair)
            yield JudgedPair(pair, (difference,), reference=reference.title, paper_difference=paper)


def adjusted(found: list[JudgedPair]) -> list[JudgedPair]:
    """Return comparisons with their p-values, adjusted for the family of all of them.

    A p-value is two-sided, because a verdict may go either way: twice the smaller of the two
    one-sided ones. Comparisons that ask the same of the same runs are one test. Those with runs
    that cannot be tested (one seed, no spread, a divergence) stay in the family, with p = 1.
    """
    family: dict[Hashable, float] = {}
    for judged in found:
        if judged.hypothesis is not None and judged.hypothesis not in family:
            low, high = map(float, judged.pair.comparison.bounds)
            sides = statistics.one_sided(judged.differences, low, high)
            family[judged.hypothesis] = min(1, 2 * min(sides))
    p_values = dict(zip(family, statistics.holm(list(family.values())).tolist(), strict=True))
    return [
        replace(judged, p_adjusted=p_values.get(judged.hypothesis), family=len(family))
        for judged in found
    ]


def paper_difference(study: Study, pair: Pair) -> Decimal | None:
    """Return the difference between the paper's own cells, None where one is not printed."""
    printed = [
        Decimal(row.printed[pair.metric])
        for table, key in (pair.first, pair.second)
        for row in study.table_rows(table)
        if row.key == key and pair.metric in row.printed
    ]
    return pair.comparison.difference(*printed) if len(printed) == 2 else None


def _of_runs(plan: Plan, pair: Pair, runs: pd.DataFrame) -> dict[str, Any]:
    """Return what runs say of a comparison, as fields of a `JudgedPair`."""
    first, second = (
        runs.loc[[run.path for run in plan.row_runs(*row)]].set_index("seed")
        for row in (pair.first, pair.second)
    )
    both = pd.concat([first, second])
    unlike = [key for key in CHANGES_NUMBERS if key in both and both[key].dropna().nunique() > 1]
    if unlike:
        return {"obstacle": f"not trained alike: {', '.join(unlike)}"}
    column = plan.study.metrics[pair.metric].source
    completed = runs["status"] == "completed"
    if column not in runs or (completed.any() and runs.loc[completed, column].isna().all()):
        return {"obstacle": f"no run has {column}"}
    # A test is two runs, a metric and where the predicate turns, whichever row is first.
    ids = [plan.specs[row].run_id for row in (pair.first, pair.second)]
    sign = -1 if ids[0] > ids[1] else 1
    turns = sorted(sign * cut for cut in pair.comparison.cuts)
    hypothesis = (*sorted(ids), pair.metric, tuple(turns))
    # What trains at some seeds only has no mean: averaging the rest would select the survivors, and
    # a divergence is no error rate that could contradict anything.
    if "diverged" in set(both["status"]):
        return {"obstacle": "a run diverged", "hypothesis": hypothesis}
    # As floats by way of pandas' own, which knows NA.
    values = [
        rows.loc[rows["status"] == "completed", column].astype("Float64").astype(float)
        for rows in (first, second)
    ]
    differences = (values[0] - values[1]).dropna()
    if differences.empty:
        return {"obstacle": "no seed has both rows"}
    return {"differences": tuple(differences), "hypothesis": hypothesis}
