"""The claim ledger: what our runs and the paper's own cells say of each of the paper's claims."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from attention_ablation.evidence.complexity import read_counts
from attention_ablation.evidence.statistics import (
    ALPHA,
    has_spread,
    holm,
    one_sided,
    seeds_needed,
    t_interval,
)
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
    each seed that both rows completed; or `exact`, of counts, in percent of the second's with
    at-most-more; or neither, for the reason `obstacle`.

    hypothesis: of a comparison that is tested; the same where the same is asked of the same runs.
    reference: whose published curves it is made on, where it is not made on our runs.
    paper_difference: between the paper's own cells, None where one is not printed.
    p_adjusted: the p-value of its test, adjusted for the whole ledger, where there is a test.
    family: how many tests the ledger has.
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
        """The comparison in words, with whose published curves it is made on, if it is."""
        return self.pair.text + f" ({self.reference})" * bool(self.reference)

    @property
    def n(self) -> int:
        """How many differences there are; a counted one is one."""
        return len(self.differences) if self.exact is None else 1

    @property
    def difference(self) -> float | None:
        """The difference, a mean over several seeds, None where there is none."""
        if self.exact is not None:
            return float(self.exact)
        return float(np.mean(self.differences)) if self.differences else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t-interval of this comparison by itself, None as of `t_interval`."""
        return t_interval(self.differences)

    @property
    def p_value(self) -> float | None:
        """The adjusted p-value, None where nothing could be tested."""
        return self.p_adjusted if self.interval else None

    @property
    def seeds_needed(self) -> int | Literal[">1000"] | None:
        """How many seeds would decide it, at the level of one test of the ledger."""
        level = ALPHA / max(self.family, 1)
        return seeds_needed(self.differences, self.pair.comparison.cuts, level)

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
        if self.p_adjusted > ALPHA:
            spread = has_spread(self.differences)
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
    """A claim with its comparisons.

    `published` are its comparisons on curves that others published: no verdict on the claim counts
    them, and with one run of each row they are undecided.
    """

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
            f"two-sided paired t-test is at most {ALPHA} after Holm's correction for all "
            f"{self.family} distinct comparisons of this ledger that have runs. Parameters and "
            "GFLOPs are counted and so compared exactly; a claim is supported where all of its "
            "comparisons are, contradicted where one is, not run where none is, and undecided "
            "otherwise, as with one seed."
        )


def ledger(plan: Plan, runs: pd.DataFrame) -> Ledger:
    """Judge every claim of the plan's study; `runs` is what `report.collect.collect` returns."""
    counts, metrics = read_counts(plan), plan.study.metrics
    ends = _ends_of_curves(plan)

    def evidence(pair: Pair) -> JudgedPair:
        rows = (pair.first, pair.second)
        if outside := [table for table, key in rows if (table, key) not in plan.specs]:
            return JudgedPair(pair, obstacle=f"{outside[0]} is not selected")
        metric = metrics[pair.metric]
        if not metric.counted:
            return _of_runs(plan, pair, runs)
        values = [counts[row].values[metric.source] if row in counts else None for row in rows]
        for (table, key), value in zip(rows, values, strict=True):
            if value is None:
                return JudgedPair(pair, obstacle=f"{key} of {table} is not counted yet")
        first, second = (Decimal(str(value)) for value in values)
        return JudgedPair(pair, exact=pair.comparison.difference(first, second))

    def published(pair: Pair) -> Iterator[JudgedPair]:
        for name, reference in plan.study.references.items():
            rows = (f"{table}:{key}" for table, key in (pair.first, pair.second))
            first, second = (ends.get((name, row, pair.metric)) for row in rows)
            if first is not None and second is not None:
                difference = float(pair.comparison.difference(first, second))
                yield JudgedPair(pair, (difference,), reference=reference.title)

    def beside_paper(judged: JudgedPair) -> JudgedPair:
        return replace(judged, paper_difference=paper_difference(plan.study, judged.pair))

    pairs = {key: list(claim.pairs()) for key, claim in plan.study.claims.items()}
    judged = iter(adjusted([evidence(pair) for of_claim in pairs.values() for pair in of_claim]))
    claims = []
    for key, claim in plan.study.claims.items():
        ours = [beside_paper(next(judged)) for _ in pairs[key]]
        others = [beside_paper(on_curves) for pair in pairs[key] for on_curves in published(pair)]
        claims.append(JudgedClaim(key, claim, ours, others))
    return Ledger(claims, len({p.hypothesis for c in claims for p in c.pairs} - {None}))


def adjusted(found: list[JudgedPair]) -> list[JudgedPair]:
    """Return comparisons with their p-values, adjusted for all of them, and the size of the family.

    A p-value is two-sided, because a verdict may go either way: twice the smaller of the two
    one-sided ones, which for 'less' and 'greater' is the paired t-test. Comparisons that ask the
    same of the same runs, such as those of a row that two tables share, are one test. Those with
    runs that cannot be tested (one seed, no spread, a divergence) stay in the family, with p = 1.
    """
    family: dict[Hashable, float] = {}
    for judged in found:
        if judged.hypothesis is not None and judged.hypothesis not in family:
            low, high = map(float, judged.pair.comparison.bounds)
            family[judged.hypothesis] = min(1, 2 * min(one_sided(judged.differences, low, high)))
    p_values = dict(zip(family, holm(list(family.values())).tolist(), strict=True))
    return [
        replace(judged, p_adjusted=p_values.get(judged.hypothesis), family=len(family))
        for judged in found
    ]


def paper_difference(study: Study, pair: Pair) -> Decimal | None:
    """Return the difference between the paper's own cells, taken as printed, without a spread."""
    printed: dict[tuple[str, str, str], str] = {
        (row.table, row.key, metric): cell
        for row in study.rows
        for metric, cell in row.printed.items()
    }
    first, second = (printed.get((*row, pair.metric)) for row in (pair.first, pair.second))
    if first is None or second is None:
        return None
    return pair.comparison.difference(Decimal(first), Decimal(second))


def _of_runs(plan: Plan, pair: Pair, runs: pd.DataFrame) -> JudgedPair:
    first, second = (
        runs.loc[[run.path for run in plan.row_runs(*row)]].set_index("seed")
        for row in (pair.first, pair.second)
    )
    both = pd.concat([first, second])
    unlike = [key for key in CHANGES_NUMBERS if key in both and both[key].dropna().nunique() > 1]
    if unlike:
        return JudgedPair(pair, obstacle=f"not trained alike: {', '.join(unlike)}")
    column = plan.study.metrics[pair.metric].source
    completed = runs["status"] == "completed"
    if column not in runs or (completed.any() and runs.loc[completed, column].isna().all()):
        return JudgedPair(pair, obstacle=f"no run has {column}")
    hypothesis = _hypothesis(plan, pair)
    # What trains at some seeds only has no mean: averaging the rest would select the survivors, and
    # a divergence is no error rate that could contradict anything.
    if "diverged" in set(both["status"]):
        return JudgedPair(pair, obstacle="a run diverged", hypothesis=hypothesis)
    # As floats by way of pandas' own, which knows NA.
    values = [
        rows.loc[rows["status"] == "completed", column].astype("Float64").astype(float)
        for rows in (first, second)
    ]
    differences = (values[0] - values[1]).dropna()
    if differences.empty:
        return JudgedPair(pair, obstacle="no seed has both rows")
    return JudgedPair(pair, tuple(differences), hypothesis=hypothesis)


def _hypothesis(plan: Plan, pair: Pair) -> Hashable:
    """Identify a test: two runs, a metric and where the predicate turns, whichever row is first."""
    first, second = (plan.specs[row].run_id for row in (pair.first, pair.second))
    turns = pair.comparison.cuts
    if first > second:
        first, second, turns = second, first, [-cut for cut in turns]
    return first, second, pair.metric, tuple(sorted(turns))


def _ends_of_curves(plan: Plan) -> dict[tuple[str, str, str], Decimal]:
    """Return the last errors of published curves, by reference, 'table:key' and metric."""
    ends = {}
    for name, reference in plan.study.references.items():
        for curve in reference.curves.values():
            if curve.row is not None:
                read = read_curve(plan.study_folder / curve.file)
                for metric in COLUMNS:
                    ends[name, curve.row, metric] = Decimal(str(read[metric][-1]))
    return ends
