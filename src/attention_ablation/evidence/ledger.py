"""The claim ledger: what our runs and the paper's own cells say of each of the paper's claims."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from attention_ablation.evidence import statistics
from attention_ablation.evidence.complexity import Counts, read_counts
from attention_ablation.evidence.samples import Sample, Samples
from attention_ablation.study.claims import Claim, Pair
from attention_ablation.study.config import Study
from attention_ablation.study.expand import Plan

Verdict = Literal["supported", "contradicted", "equivalent", "undecided", "not run"]
PaperVerdict = Literal["holds", "does not hold", "not printed"]


@dataclass(frozen=True)
class JudgedPair:
    """A comparison with all that is said of it: a line of claims.csv and of the page.

    There is a `sample` of runs, or `exact`, of counts, or neither, because of `obstacle`.

    reference: whose published curves it is made on, where it is not made on our runs.
    p_adjusted, p_equivalent: the p-values of the tests that its rows differ, by its predicate, and
        that they are equivalent, adjusted for the whole `family` of comparisons.
    """

    pair: Pair
    sample: Sample = field(default_factory=Sample)
    exact: Decimal | None = None
    obstacle: str = ""
    reference: str = ""
    paper_difference: Decimal | None = None
    p_adjusted: float | None = None
    p_equivalent: float | None = None
    family: int = 0

    @property
    def text(self) -> str:
        """The comparison in words, with whose published curves it is made on."""
        return self.pair.text + f" ({self.reference})" * bool(self.reference)

    @property
    def n(self) -> int:
        return len(self.sample.differences) if self.exact is None else 1

    @property
    def difference(self) -> float | None:
        """The first row's value less the second's, in the metric's unit: the seeds' mean."""
        if self.exact is not None:
            return float(self.exact)
        return float(np.mean(self.sample.differences)) if self.sample.differences else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of this comparison by itself."""
        return self.sample.mean.interval if self.sample.mean else None

    @property
    def p_value(self) -> float | None:
        """The adjusted p-value that the rows differ, None where nothing could be tested."""
        return self.p_adjusted if self.interval else None

    @property
    def margin(self) -> float | None:
        """Within what our runs would be equivalent, None where that is not asked."""
        comparison = self.pair.comparison
        asked = comparison.directed and self.exact is None and not self.reference
        return comparison.margin if asked else None

    @cached_property
    def seeds_needed(self) -> int | Literal[">1000"] | None:
        """How many seeds would decide it, at the level of one test of the ledger."""
        if self.sample.mean is None:
            return None
        level = statistics.ALPHA / max(self.family, 1)
        cuts = self.pair.comparison.cuts
        return statistics.seeds_needed(self.sample.mean, cuts, self.margin, level)

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
        if self.p_adjusted <= statistics.ALPHA:
            low, high = map(float, self.pair.comparison.bounds)
            inside = low < np.mean(self.sample.differences) < high
            return ("supported" if inside else "contradicted"), ""
        if self.p_equivalent is not None and self.p_equivalent <= statistics.ALPHA:
            return "equivalent", ""
        return "undecided", f"p = {self.p_adjusted:.2g}" if self.interval else "no spread"

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
        """Contradicted if any comparison is, supported if all are, not run if none is run.

        Equivalent where all are decided and some are equivalent: no difference there that counts.
        """
        found = {pair.verdict for pair in self.pairs}
        if "contradicted" in found:
            return "contradicted"
        if found == {"supported", "equivalent"}:
            return "equivalent"
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
        """How verdicts come about."""
        return (
            "Rows are compared by the differences of their runs, paired by seed. How far these "
            "scatter is told by the differences themselves and, unless they or their rows scatter "
            "more (F-tests at 20 %), by what is usual among the other rows of that backbone and "
            "recipe, with twice their weight at most. The interval is the 95 % t-interval of the "
            "mean difference, of each comparison by itself. A comparison is supported or "
            "contradicted, by its direction, where it differs significantly from its bound, and "
            "equivalent where it does not and lies significantly within its margin either way; "
            "significant is a t-test whose "
            f"two-sided p-value (one-sided for the margin) is at most {statistics.ALPHA} after "
            f"Holm's correction for all {self.family} distinct comparisons of this ledger that "
            "have runs. Parameters and GFLOPs are counted and so compared exactly. A claim is "
            "contradicted where one of its comparisons is, supported where all are, equivalent "
            "where all are one or the other, not run where none is run, and undecided otherwise, "
            "as with one seed."
        )


def ledger(plan: Plan, runs: pd.DataFrame) -> Ledger:
    """Judge every claim of the plan's study; `runs` is what `report.collect.collect` returns."""
    counts, claims, samples = read_counts(plan), plan.study.claims, Samples(plan, runs)
    ours = adjusted(
        [_judge(plan, pair, samples, counts) for claim in claims.values() for pair in claim.pairs()]
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


def _judge(plan: Plan, pair: Pair, samples: Samples, counts: Counts) -> JudgedPair:
    metric = plan.study.metrics[pair.metric]
    comparison = pair.comparison.at(plan.tier.margin, metric.unit)
    pair = replace(pair, comparison=comparison)
    judged = JudgedPair(pair, paper_difference=paper_difference(plan.study, pair))
    if outside := [table for table, key in pair.rows if (table, key) not in plan.specs]:
        return replace(judged, obstacle=f"{outside[0]} is not selected")
    if not metric.counted:
        sample = samples.of(pair)
        return replace(judged, sample=sample, obstacle=sample.obstacle)
    exact = []
    for table, key in pair.rows:
        count = counts.get((table, key))
        value = count.values[metric.source] if count else None
        if value is None:
            return replace(judged, obstacle=f"{key} of {table} is not counted yet")
        exact.append(Decimal(str(value)))
    return replace(judged, exact=pair.comparison.difference(*exact))


def _published(plan: Plan, pair: Pair) -> Iterator[JudgedPair]:
    """Yield the comparison of the last numbers of each reference that has both rows."""
    if pair.comparison.than:
        return
    rows = [f"{table}:{key}" for table, key in (pair.first, pair.second)]
    for reference in plan.study.references.values():
        numbers = [reference.numbers(row, plan.study_folder).get(pair.metric) for row in rows]
        errors = [Decimal(str(number)) for number in numbers if number is not None]
        if len(errors) == len(rows):
            difference = float(pair.comparison.difference(*errors))
            paper = paper_difference(plan.study, pair)
            sample = Sample((difference,))
            yield JudgedPair(pair, sample, reference=reference.title, paper_difference=paper)


def adjusted(found: list[JudgedPair]) -> list[JudgedPair]:
    """Return comparisons with their p-values, adjusted for the family of all of them.

    The p-value of a direction is two-sided, because a verdict may go either way: twice the smaller
    of the two one-sided ones. It and that of equivalence are of one family: rows that differ by the
    margin or more are not equivalent, and rows that do not differ are. Comparisons that ask the
    same of the same runs are one. Those with runs that cannot be tested (one seed, no spread, a
    divergence) stay among them, with p = 1.
    """
    tests: dict[tuple[Hashable, str], float] = {}
    for judged in found:
        hypothesis, mean = judged.sample.hypothesis, judged.sample.mean
        if hypothesis is None:
            continue
        sides = mean.one_sided(*map(float, judged.pair.comparison.bounds)) if mean else (1.0, 1.0)
        tests[hypothesis, "differ"] = min(1.0, 2 * min(sides))
        if judged.margin is not None:
            inside = mean.one_sided(-judged.margin, judged.margin)[0] if mean else 1.0
            tests[hypothesis, "equivalent"] = inside
    families = [hypothesis for hypothesis, _ in tests]
    adjusted_p = statistics.holm(list(tests.values()), families).tolist()
    p_values = dict(zip(tests, adjusted_p, strict=True))
    return [
        replace(
            judged,
            p_adjusted=p_values.get((judged.sample.hypothesis, "differ")),
            p_equivalent=p_values.get((judged.sample.hypothesis, "equivalent")),
            family=len(set(families)),
        )
        for judged in found
    ]


def paper_difference(study: Study, pair: Pair) -> Decimal | None:
    """Return the difference between the paper's own cells, None where one is not printed.

    Nor is there one of numbers that are of different sources or recipes.
    """
    rows = [
        row
        for table, key in pair.rows
        for row in study.table_rows(table)
        if row.key == key and pair.metric in row.printed
    ]
    if (
        len({(row.source, row.protocol) for row in rows}) > 1
        and not study.metrics[pair.metric].counted
    ):
        return None
    printed = [Decimal(row.printed[pair.metric]) for row in rows]
    return pair.comparison.difference(*printed) if len(printed) == len(pair.rows) else None
