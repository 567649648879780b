"""The claim ledger: what our runs and the paper's own cells say of each of the paper's claims."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd

from attention_ablation.evidence.complexity import Counts, read_counts
from attention_ablation.evidence.references import differences
from attention_ablation.evidence.statistics import (
    ALPHA,
    Paired,
    has_spread,
    holm,
    one_sided,
    paired,
    seeds_needed,
)
from attention_ablation.study.claims import Claim, Pair, cuts
from attention_ablation.study.config import Study
from attention_ablation.study.confounds import CHANGES_NUMBERS
from attention_ablation.study.expand import Plan

Verdict = Literal["supported", "contradicted", "undecided", "not run"]
PaperVerdict = Literal["holds", "does not hold", "not printed"]


@dataclass(frozen=True)
class Evidence:
    """What our runs have on one comparison.

    There is one of: `differences`, one for each seed that both rows completed; `exact`, of counted
    numbers; or neither, for which `obstacle` gives the reason. `diverged` says that a run of either
    row diverged. `hypothesis` is the same for comparisons that ask the same of the same runs.
    """

    pair: Pair
    differences: tuple[float, ...] = ()
    exact: Decimal | None = None
    diverged: bool = False
    obstacle: str = ""
    hypothesis: Hashable = None

    @property
    def tested(self) -> bool:
        """Whether it is in the family of tests: there are runs, and seeds may change the answer."""
        return self.diverged or bool(self.differences)


@dataclass(frozen=True)
class JudgedPair:
    """A comparison with its verdicts: a line of claims.csv.

    `reference` names published curves where the comparison is on them and not on our runs.
    `difference` is the first row's value less the second's in the metric's unit, in percent of the
    second's for at-most-more; over several seeds it is a mean. `interval` is the 95 % t-interval
    of this comparison by itself; `p_value` is adjusted for the whole ledger. `reason` says why
    there is no decision, and is empty where there is one.
    """

    pair: Pair
    verdict: Verdict
    reason: str
    n: int
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    seeds_needed: int | Literal[">1000"] | None
    paper_difference: Decimal | None
    paper_verdict: PaperVerdict
    reference: str = ""

    @property
    def text(self) -> str:
        """The comparison in words, with whose published curves it is made on, if it is."""
        return self.pair.text + f" ({self.reference})" * bool(self.reference)


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdicts and those on its comparisons.

    `published` are its comparisons on curves that others published: no verdict on the claim counts
    them, and with one run of each row they are undecided.
    """

    key: str
    claim: Claim
    pairs: list[JudgedPair]
    published: list[JudgedPair] = field(default_factory=list)

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


def ledger(plan: Plan, frame: pd.DataFrame) -> Ledger:
    """Judge every claim of the plan's study.

    Args:
        frame: the plan's runs, as `report.collect.collect` returns them.
    """
    claims, counts = plan.study.claims, read_counts(plan)
    found = [
        evidence(plan, frame, pair, counts) for claim in claims.values() for pair in claim.pairs()
    ]
    p_values = adjusted(found)
    family = len({e.hypothesis for e in found if e.tested})
    judged = iter([judge(plan.study, e, p, family) for e, p in zip(found, p_values, strict=True)])
    return Ledger(
        [
            JudgedClaim(key, claim, [next(judged) for _ in claim.pairs()], _published(plan, claim))
            for key, claim in claims.items()
        ],
        family,
    )


def evidence(plan: Plan, frame: pd.DataFrame, pair: Pair, counts: Counts) -> Evidence:
    """Look up what there is on one comparison: runs of the selected tables, or counts."""
    for table, key in (pair.first, pair.second):
        if (table, key) not in plan.specs:
            return Evidence(pair, obstacle=f"{table} is not selected")
    metric = plan.study.metrics[pair.metric]
    if metric.counted:
        return _counts(counts, pair, metric.source)
    first, second = (
        frame.loc[[run.path for run in plan.row_runs(*row)]].set_index("seed")
        for row in (pair.first, pair.second)
    )
    both = pd.concat([first, second])
    unlike = [key for key in CHANGES_NUMBERS if key in both and both[key].dropna().nunique() > 1]
    if unlike:
        return Evidence(pair, obstacle=f"not trained alike: {', '.join(unlike)}")
    column = metric.source
    completed = frame["status"] == "completed"
    if column not in frame or (completed.any() and frame.loc[completed, column].isna().all()):
        return Evidence(pair, obstacle=f"no run has {column}")
    hypothesis = _hypothesis(plan, pair)
    # What trains at some seeds only has no mean: averaging the rest would select the survivors, and
    # a divergence is no error rate that could contradict anything.
    if "diverged" in {*first["status"], *second["status"]}:
        return Evidence(pair, diverged=True, obstacle="a run diverged", hypothesis=hypothesis)
    differences = (_values(first, column) - _values(second, column)).dropna()
    if differences.empty:
        return Evidence(pair, obstacle="no seed has both rows")
    return Evidence(pair, tuple(differences), hypothesis=hypothesis)


def adjusted(found: Sequence[Evidence]) -> list[float | None]:
    """Return the p-value of each comparison, adjusted for all of them; None where none is tested.

    It is two-sided, because a verdict may go either way: twice the smaller of the two one-sided
    p-values, which for 'less' and 'greater' is the paired t-test. Comparisons that ask the same of
    the same runs, such as those of a row that two tables share, are one test. Those with runs that
    cannot be tested (one seed, no spread, a divergence) stay in the family, with p = 1.
    """
    family: dict[Hashable, float] = {}
    for e in found:
        if e.tested and e.hypothesis not in family:
            low, high = map(float, e.pair.comparison.bounds)
            p = 1.0 if e.diverged else 2 * min(one_sided(e.differences, low, high))
            family[e.hypothesis] = min(p, 1.0)
    by_hypothesis = dict(zip(family, holm(list(family.values())), strict=True))
    return [float(by_hypothesis[e.hypothesis]) if e.tested else None for e in found]


def decide(e: Evidence, p_value: float | None) -> tuple[Verdict, str]:
    """Return the verdict on one comparison, and why there is none where it is open."""
    if e.exact is not None:
        return ("supported" if e.pair.comparison.holds(e.exact) else "contradicted"), ""
    if not e.tested or p_value is None:
        return "not run", e.obstacle
    if e.diverged:
        return "undecided", e.obstacle
    if len(e.differences) == 1:
        return "undecided", "one seed"
    if p_value > ALPHA:
        why = f"p = {p_value:.2g}" if has_spread(e.differences) else "the same in every seed"
        return "undecided", why
    low, high = map(float, e.pair.comparison.bounds)
    return ("supported" if low < np.mean(e.differences) < high else "contradicted"), ""


def judge(study: Study, e: Evidence, p_value: float | None, family: int) -> JudgedPair:
    """Put together all that is said of one comparison; `family` is the number of tests."""
    verdict, reason = decide(e, p_value)
    summary = Paired(0, float("nan"), None)
    if e.exact is not None:
        summary = Paired(1, float(e.exact), None)
    elif e.differences:
        summary = paired(e.differences)
    level = ALPHA / max(family, 1)
    comparison = e.pair.comparison
    difference, paper = judge_paper(study, e.pair)
    return JudgedPair(
        pair=e.pair,
        verdict=verdict,
        reason=reason,
        n=summary.n,
        difference=summary.mean if summary.n else None,
        interval=summary.interval,
        p_value=p_value if summary.interval else None,
        seeds_needed=seeds_needed(e.differences, cuts(comparison), level),
        paper_difference=difference,
        paper_verdict=paper,
    )


def judge_paper(study: Study, pair: Pair) -> tuple[Decimal | None, PaperVerdict]:
    """Return the difference between the paper's own cells, and whether the comparison holds there.

    Cells are taken as printed, without a spread; equal ones are neither less nor greater.
    """
    printed: dict[tuple[str, str, str], str] = {
        (row.table, row.key, metric): cell
        for row in study.rows
        for metric, cell in row.printed.items()
    }
    first, second = (printed.get((*row, pair.metric)) for row in (pair.first, pair.second))
    if first is None or second is None:
        return None, "not printed"
    difference = pair.comparison.difference(Decimal(first), Decimal(second))
    return difference, "holds" if pair.comparison.holds(difference) else "does not hold"


def _published(plan: Plan, claim: Claim) -> list[JudgedPair]:
    return [
        JudgedPair(
            pair=pair,
            verdict="undecided",
            reason="one published run of each",
            n=1,
            difference=difference,
            interval=None,
            p_value=None,
            seeds_needed=None,
            paper_difference=paper,
            paper_verdict=verdict,
            reference=title,
        )
        for pair in claim.pairs()
        for title, difference in differences(plan, pair)
        for paper, verdict in [judge_paper(plan.study, pair)]
    ]


def _counts(counts: Counts, pair: Pair, source: str) -> Evidence:
    values = []
    for table, key in (pair.first, pair.second):
        value = counts[table, key].values[source] if (table, key) in counts else None
        if value is None:
            return Evidence(pair, obstacle=f"{key} of {table} is not counted yet")
        values.append(Decimal(str(value)))
    return Evidence(pair, exact=pair.comparison.difference(values[0], values[1]))


def _values(runs: pd.DataFrame, column: str) -> "pd.Series[float]":
    values = runs.loc[runs["status"] == "completed", column]
    return values.astype("Float64").astype(float)  # by way of pandas' own, which knows NA


def _hypothesis(plan: Plan, pair: Pair) -> Hashable:
    """Identify a test: two runs, a metric and where the predicate turns, whichever row is first."""
    first, second = (plan.specs[row].run_id for row in (pair.first, pair.second))
    turns = cuts(pair.comparison)
    if first > second:
        first, second, turns = second, first, [-cut for cut in turns]
    return first, second, pair.metric, tuple(sorted(turns))
