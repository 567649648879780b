"""Intervals, tests and their correction against scipy and by hand, and false calls."""

import math

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from attention_ablation.evidence.ledger import JudgedPair
from attention_ablation.evidence.samples import Sample
from attention_ablation.evidence.statistics import (
    Mean,
    Spread,
    contest,
    holm,
    prediction_interval,
    seeds_needed,
    spread_of,
    t_interval,
)
from attention_ablation.study.expand import load_plan
from benchmarks.verdicts import MARGIN, SETTINGS, Simulation, decided, false_ledgers, is_false
from tests.conftest import ROOT


def test_holm_by_hand() -> None:
    # 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.5 x 1.
    assert holm([0.03, 0.5, 0.01, 0.02]).tolist() == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # Never below a smaller p-value's, never above 1.
    assert holm([0.4, 0.3, 0.3]).tolist() == pytest.approx([0.9, 0.9, 0.9])
    assert holm([0.6, 0.9]).tolist() == [1, 1]
    assert holm([]).tolist() == []


def test_holm_counts_names_of_which_one_test_at_most_calls_falsely() -> None:
    # Two names, so 0.01 x 2; then still both, 0.02 x 2; then 0.03 x 1, of b alone.
    adjusted_p = holm([0.01, 0.03, 0.02, 0.5], ["a", "b", "a", "b"])
    assert adjusted_p.tolist() == pytest.approx([0.02, 0.04, 0.04, 0.5])
    assert holm([0.02, 0.01], ["a", "a"]).tolist() == pytest.approx([0.02, 0.01])


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
        mean = mean_of(a - b)
        assert mean.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        for bounds in ((-math.inf, 0.0), (0.0, math.inf)):
            assert 2 * min(mean.one_sided(*bounds)) == pytest.approx(float(theirs.pvalue))


def spread_alone(differences: ArrayLike) -> Spread | None:
    values = np.asarray(differences, dtype=float)
    return spread_of([values, np.zeros_like(values)])


def mean_of(differences: ArrayLike) -> Mean:
    spread = spread_alone(differences)
    assert spread
    return Mean(float(np.mean(differences)), np.size(differences), spread)


def test_about_is_two_tests_inside_and_the_nearer_end_outside() -> None:
    values = [0.8, 0.9, 1.0]
    inside, outside = mean_of(values).one_sided(0.5, 1.5)
    assert inside == pytest.approx(
        float(stats.ttest_1samp(values, 0.5, alternative="greater").pvalue)
    )
    assert outside > 0.5
    inside, outside = mean_of(values).one_sided(0.0, 0.5)
    assert outside == pytest.approx(
        float(stats.ttest_1samp(values, 0.5, alternative="greater").pvalue)
    )
    assert inside > 0.5


def test_nothing_is_divided_by_no_spread() -> None:
    for values in ([1.0], [0.2, 0.2], [0.0, 0.0, 0.0]):
        assert t_interval(values) is None
        assert prediction_interval(values) is None
        assert spread_alone(values) is None
        assert spread_of([values, values], np.full((3, len(values)), 7.0)) is None


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_prediction_interval_holds_one_further_value_in_95_percent(n: int) -> None:
    draws = np.random.default_rng(0).normal(24, 0.1, size=(4000, n + 1))
    found = 0
    for *values, further in draws:
        interval = prediction_interval(values)
        assert interval
        found += interval[0] <= further <= interval[1]
    low, high = stats.binom.interval(0.999, len(draws), 0.95)
    assert low <= found <= high


def test_the_prediction_interval_by_hand() -> None:
    # Mean 23, standard deviation 3, t(0.975, 2) = 4.3027: 4.3027 x 3 x sqrt(4/3) = 14.905.
    interval = prediction_interval([20.0, 23.0, 26.0])
    assert interval == pytest.approx((8.095, 37.905), abs=1e-3)


def test_rows_that_scatter_alike_share_what_is_usual() -> None:
    generator = np.random.default_rng(0)
    pair, others = generator.normal(size=(2, 5)), generator.normal(size=(7, 5))
    own, pooled = spread_alone(pair[0] - pair[1]), spread_of(pair, others)
    assert own
    assert pooled
    assert pooled.df == 3 * own.df
    # A variance of four degrees of freedom is, in half of all cases, below 0.839 of the true one.
    bias = stats.chi2.median(4) / 4
    assert bias == pytest.approx(0.839, abs=1e-3)
    usual = 2 * sorted(row.var(ddof=1) for row in others)[3] / bias
    assert pooled.variance == pytest.approx((2 * usual + own.variance) / 3)
    # One other row weighs what its seeds are worth.
    one = spread_of(pair, others[:1])
    assert one
    assert one.df == pytest.approx(4 + 0.6 * 4)
    # A wild row among the others changes nothing, and one of the two hides behind nobody.
    wild = others.copy()
    wild[np.argmax(others.var(axis=1))] *= 50
    assert spread_of(pair, wild) == pooled
    pair[0] *= 50
    assert spread_of(pair, others) == spread_alone(pair[0] - pair[1])


def test_differences_without_spread_borrow_what_is_usual() -> None:
    spread = spread_of([[10.0, 11, 12], [12.0, 13, 14]], [[10.2, 10.9, 12.4], [9.0, 11.1, 12.2]])
    assert spread
    assert spread.variance > 0


def test_seeds_needed_is_where_power_reaches_80_percent() -> None:
    def needed(values: ArrayLike, level: float, margin: float | None = None) -> int | str:
        return seeds_needed(mean_of(values), [0], margin, level)

    # An effect of one standard deviation, alpha 0.05 two-sided: 10 pairs (Cohen 1988, 80 % power).
    assert needed([0.0, 1.0, 2.0], 0.05) == 10
    strict = needed([0.0, 1.0, 2.0], 0.05 / 40)
    assert isinstance(strict, int)
    assert strict > 10
    draws = np.random.default_rng(0).normal(1, 1, size=(4000, strict))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue <= 0.05 / 40)
    assert found == pytest.approx(0.8, abs=0.03)
    assert needed([-1.0, 0.0, 1.0], 0.05) == ">1000"
    assert needed([-1.0, 0.0, 1.001], 0.05) == ">1000"
    assert needed([50.0, 50.00001], 0.05) == 2
    # No difference at all is equivalent as soon as the margin is one standard deviation away.
    assert needed([-1.0, 0.0, 1.0], 0.05, margin=1.0) == 10


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(load_plan({"study": "cbam", "tier": "quick"}, ROOT))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("seeds", "shift"), [(2, 0.0), (3, 0.0), (5, 0.0), (5, MARGIN)])
def test_at_most_5_percent_of_null_ledgers_have_a_false_verdict(
    simulation: Simulation, setting: str, seeds: int, shift: float
) -> None:
    ledgers = 60
    found = false_ledgers(simulation, ledgers, seeds, setting, shift)
    # At a true rate of 5 %, more than this is seen once in a thousand tests.
    assert found <= stats.binom.ppf(0.999, ledgers, 0.05)


def test_a_false_verdict_is_seen() -> None:
    study = load_plan({"study": "cbam", "tier": "quick"}, ROOT).study
    (pair, *_) = study.claims["T3a"].pairs()
    judged = JudgedPair(pair, Sample((1.0,) * 2), p_adjusted=0.001)
    assert judged.verdict == "contradicted"
    assert [is_false(judged, truth) for truth in (1.0, 0.0, -1.0)] == [False, True, True]


@pytest.mark.parametrize("pooled", [True, False])
def test_large_effects_are_found_more_often_with_a_shared_spread(
    simulation: Simulation, pooled: bool
) -> None:
    share = decided(simulation, 4, 5, shift=4.0, pooled=pooled)
    assert share > 0.4 if pooled else share < 0.3


def test_a_huge_effect_is_found_in_all_ledgers(simulation: Simulation) -> None:
    found = simulation.draw(np.random.default_rng(0), 5, shift=40.0)
    for judged, truth in found:
        if truth:
            low, high = map(float, judged.pair.comparison.bounds)
            assert judged.verdict == ("supported" if low < truth < high else "contradicted")
