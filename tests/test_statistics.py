"""Intervals, tests and their correction against scipy and by hand, and false calls."""

import math

import numpy as np
import pytest
from scipy import stats

from attention_ablation.evidence.ledger import JudgedPair, adjusted
from attention_ablation.evidence.statistics import (
    ALPHA,
    contest,
    holm,
    one_sided,
    seeds_needed,
    t_interval,
)
from attention_ablation.study.config import Study


def test_holm_by_hand() -> None:
    # 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.5 x 1.
    assert holm([0.03, 0.5, 0.01, 0.02]).tolist() == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # Never below a smaller p-value's, never above 1.
    assert holm([0.4, 0.3, 0.3]).tolist() == pytest.approx([0.9, 0.9, 0.9])
    assert holm([0.6, 0.9]).tolist() == [1, 1]
    assert holm([]).tolist() == []


def test_the_paired_interval_and_test_are_scipys() -> None:
    generator = np.random.default_rng(0)
    for n in (2, 3, 10):
        a, b = generator.normal(size=(2, n))
        theirs = stats.ttest_rel(a, b)
        assert t_interval(a - b) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        ours = contest({"a": a.tolist(), "b": b.tolist()})
        assert ours
        first, second = (a, b) if ours.first == "a" else (b, a)
        assert (ours.n, ours.mean) == (n, pytest.approx(float(np.mean(first - second))))
        assert ours.interval == t_interval(first - second)
        for bounds in ((-math.inf, 0.0), (0.0, math.inf)):
            assert 2 * min(one_sided(a - b, *bounds)) == pytest.approx(float(theirs.pvalue))


def test_about_is_two_tests_inside_and_the_nearer_end_outside() -> None:
    values = [0.8, 0.9, 1.0]
    inside, outside = one_sided(values, 0.5, 1.5)
    assert inside == pytest.approx(
        float(stats.ttest_1samp(values, 0.5, alternative="greater").pvalue)
    )
    assert outside > 0.5
    inside, outside = one_sided(values, 0.0, 0.5)
    assert outside == pytest.approx(
        float(stats.ttest_1samp(values, 0.5, alternative="greater").pvalue)
    )
    assert inside > 0.5


def test_nothing_is_divided_by_no_spread() -> None:
    for values in ([1.0], [0.2, 0.2], [0.0, 0.0, 0.0]):
        assert t_interval(values) is None
        assert one_sided(values, -math.inf, 0) == (1, 1)
        assert seeds_needed(values, [0], ALPHA) is None


def test_seeds_needed_is_where_power_reaches_80_percent() -> None:
    # An effect of one standard deviation, alpha 0.05 two-sided: 10 pairs (Cohen 1988, 80 % power).
    assert seeds_needed([0.0, 1.0, 2.0], [0], 0.05) == 10
    strict = seeds_needed([0.0, 1.0, 2.0], [0], 0.05 / 40)
    assert isinstance(strict, int)
    assert strict > 10
    draws = np.random.default_rng(0).normal(1, 1, size=(4000, strict))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue <= 0.05 / 40)
    assert found == pytest.approx(0.8, abs=0.03)
    assert seeds_needed([-1.0, 0.0, 1.0], [0], 0.05) == ">1000"
    assert seeds_needed([-1.0, 0.0, 1.001], [0], 0.05) == ">1000"
    assert seeds_needed([50.0, 50.00001], [0], 0.05) == 2


def simulated(
    study: Study,
    generator: np.random.Generator,
    effect: float = 0,
    seeds: int = 5,
    step: float | None = None,
) -> set[tuple[str, str]]:
    """Draw a ledger of the study's top-1 comparisons; return the verdict on each distinct one.

    A seed shifts all rows together (by 0.3 points), and each row by itself (by 0.15, as ResNet50 on
    ImageNet); errors are multiples of `step`. The first row of every comparison is better by
    `effect`.
    """
    rows = {(row.table, row.key): (row.backbone, row.attention) for row in study.rows}
    # Rows that tables share are one.
    shared = generator.normal(0, 0.3, size=seeds)
    errors = {net: 30 + shared + generator.normal(0, 0.15, size=seeds) for net in {*rows.values()}}
    if step:
        errors = {net: step * np.round(values / step) for net, values in errors.items()}
    found = []
    for claim in study.claims.values():
        for pair in claim.pairs():
            if pair.metric == "top1_error":
                first, second = rows[pair.first], rows[pair.second]
                differences = tuple(errors[first] - errors[second] - effect)
                found.append(JudgedPair(pair, differences, hypothesis=(first, second)))
    verdicts: set[tuple[str, str]] = {
        (str(judged.hypothesis), judged.verdict) for judged in adjusted(found)
    }
    assert len(verdicts) == 40
    return verdicts


@pytest.mark.parametrize(("seeds", "step"), [(5, None), (3, 0.2)])
def test_equal_rows_are_called_different_in_at_most_5_percent_of_ledgers(
    study: Study, seeds: int, step: float | None
) -> None:
    generator = np.random.default_rng(0)
    ledgers = 400
    called = sum(
        any(verdict != "undecided" for _, verdict in simulated(study, generator, 0, seeds, step))
        for _ in range(ledgers)
    )
    # At a true rate of 5 %, more than this is seen once in a thousand tests.
    assert called <= stats.binom.ppf(0.999, ledgers, 0.05)


@pytest.mark.parametrize(("effect", "expected"), [(4.0, "supported"), (-4.0, "contradicted")])
def test_large_effects_are_found_in_nearly_all_ledgers(
    study: Study, effect: float, expected: str
) -> None:
    generator = np.random.default_rng(1)
    verdicts = [v for _ in range(40) for _, v in simulated(study, generator, effect)]
    assert verdicts.count(expected) / len(verdicts) > 0.99
