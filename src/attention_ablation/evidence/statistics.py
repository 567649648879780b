"""How far a mean is known, and when a difference between rows is more than the seeds' spread."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

# scipy.stats takes most of a second to import; one seed does not need it.

CONFIDENCE = 0.95
ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1000
RESAMPLES = 9999
# Errors are multiples of 100/n percent: a smaller spread of their differences is rounding.
ROUNDING = 1e-6
MOST_POOLED = 2
UNLIKE = 0.2
EFFICIENCY = 0.6  # of a median of variances beside their mean, about 2/pi


@dataclass(frozen=True)
class Spread:
    """A variance of single differences with its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True)
class Contest:
    """The row with the best mean less the one with the next, in n seeds that both have."""

    first: str
    second: str
    n: int
    mean: float
    interval: tuple[float, float] | None

    @property
    def resolved(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def t_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % t-interval of the mean, None for one value and for equal ones.

    A spread of 0 among a few seeds shows the coarse steps of the metric, not certainty.
    """
    values = np.asarray(values, dtype=float)
    error = _standard_error(values)
    if error is None:
        return None
    from scipy import stats

    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, float(values.mean()), error)
    return float(low), float(high)


def prediction_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % interval of one further value, None where `t_interval` has none."""
    values = np.asarray(values, dtype=float)
    error = _standard_error(values)
    if error is None:
        return None
    from scipy.special import stdtrit  # quantiles of Student's t

    # The further value scatters by itself, beside the mean: s sqrt(1 + 1/n).
    half = (
        float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error * math.sqrt(values.size + 1)
    )
    return float(values.mean()) - half, float(values.mean()) + half


def contest(
    values: Mapping[str, Sequence[float]], *, higher_is_better: bool = False
) -> Contest | None:
    """Compare the two of several rows with the best means; each row's values by the same seeds."""
    if len(values) < 2:
        return None
    sign = -1 if higher_is_better else 1
    first, second = sorted(values, key=lambda row: sign * float(np.mean(values[row])))[:2]
    differences = np.subtract(values[first], values[second])
    interval = t_interval(differences)
    return Contest(first, second, len(differences), float(differences.mean()), interval)


def spread_of(pair: ArrayLike, others: ArrayLike = ()) -> Spread | None:
    """Return how far the differences of two rows scatter, told by themselves and by other rows.

    Rows of a backbone and recipe scatter alike, but not all of them: one that hardly trains
    scatters ten times as much. What is usual among the others is the median of their variances.
    Where neither the differences nor one of their rows scatter more than that (F-tests at 20 %),
    both variances are pooled, the usual one with at most `MOST_POOLED` times the degrees of freedom
    of the differences' own. `benchmarks/verdicts.py` measures the false verdicts.

    None for one seed, and where nothing scatters.

    Args:
        pair: (2, seeds): values of the two rows.
        others: (rows, seeds): values of the rows that the spread may be common to.
    """
    rows = np.asarray(pair, dtype=float)
    df = rows.shape[1] - 1
    if df < 1:
        return None
    found = own = Spread(float((rows[0] - rows[1]).var(ddof=1)), df)
    if len(variances := np.asarray(others, dtype=float)):
        from scipy.special import chdtri, fdtrc  # quantiles of chi-squared; upper tail of F

        variances = variances.var(axis=1, ddof=1)
        bias = float(chdtri(df, 0.5)) / df if len(variances) > 2 else 1.0
        usual = 2 * float(np.median(variances)) / bias  # of a difference: twice that of a row
        its_df = EFFICIENCY * df * len(variances)
        largest = max(own.variance, *(2 * rows.var(axis=1, ddof=1)))
        if usual > 0 and fdtrc(df, its_df, largest / usual) > UNLIKE:
            weight = min(its_df, MOST_POOLED * df)
            pooled = (weight * usual + df * own.variance) / (weight + df)
            found = Spread(pooled, weight + df)
    return found if math.sqrt(found.variance) >= ROUNDING else None


def added(first: Spread | None, second: Spread | None) -> Spread | None:
    """Return the spread of the difference of two independent differences (Satterthwaite 1946)."""
    if not (first and second):
        return None
    both = first.variance + second.variance
    return Spread(both, both**2 / (first.variance**2 / first.df + second.variance**2 / second.df))


@dataclass(frozen=True)
class Mean:
    """A mean of n differences with their spread, tested by Student's t."""

    value: float
    n: int
    spread: Spread

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.spread.variance / self.n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the true mean."""
        from scipy.special import stdtrit  # quantiles of Student's t

        half = float(stdtrit(self.spread.df, (1 + CONFIDENCE) / 2)) * self.error
        return self.value - half, self.value + half

    def one_sided(self, low: float, high: float) -> tuple[float, float]:
        """Return the p-values of tests that the true mean is inside, and outside, of an interval.

        Inside both ends, which may be infinite, are tested, and the larger p counts.
        """
        from scipy.special import stdtr  # Student's t-distribution function

        t = (self.value - np.array([low, high])) / self.error
        below, above = stdtr(self.spread.df, t), stdtr(self.spread.df, -t)
        return float(max(above[0], below[1])), float(min(below[0], above[1]))


def holm(p_values: ArrayLike, families: Sequence[Hashable] | None = None) -> NDArray[np.float64]:
    """Return p-values adjusted for a family of tests (Holm 1979, Shaffer 1986).

    Calling those of at most `ALPHA` significant, the chance of one or more false calls in the whole
    family is at most `ALPHA`, however the tests depend on each other.

    Args:
        families: by test, a name that tests share of which one at most calls falsely, whatever the
            truth is: that two rows differ, and that they are as good as equal.
    """
    p = np.array(p_values, dtype=float)
    names = list(families if families is not None else range(len(p)))
    left = Counter(names)
    largest = 0.0
    for place in np.argsort(p):
        # The smallest is compared with alpha/m, the next with alpha/(m-1), until one fails.
        largest = max(largest, float(p[place]) * len(left))
        p[place] = min(largest, 1.0)
        left[names[place]] -= 1
        left += Counter()  # drops those of which no test is left
    return p


def seeds_needed(
    mean: Mean, cuts: Sequence[float], margin: float | None, level: float
) -> int | Literal[">1000"]:
    """Return how many seeds would decide a comparison in 80 % of all repetitions.

    It takes the observed mean and spread for the true ones, and the power of t-tests from the
    noncentral t-distribution, with degrees of freedom that grow with the seeds.

    Args:
        cuts: the means that the test must tell the true one from; the nearest binds.
        margin: within which, either way, it is equivalent, if that is tested, too.
        level: of one test, such as ALPHA divided by the number of tests.
    """
    deviation = math.sqrt(mean.spread.variance)
    effects = [min(abs(mean.value - cut) for cut in cuts) / deviation]
    if margin is not None:
        effects.append((margin - abs(mean.value)) / deviation)
    share = mean.spread.df / (mean.n - 1)
    from scipy import stats

    def enough(n: int) -> bool:
        # The tail in the other direction would be a false call, not power.
        df = share * (n - 1)
        critical = stats.t.isf(level / 2, df)
        return bool(stats.nct.sf(critical, df, max(effects) * math.sqrt(n)) >= POWER)

    # In doubling steps first: far above the answer the noncentral t is slow.
    most = 2
    while not enough(most):
        if most == MOST_SEEDS:
            return ">1000"
        most = min(2 * most, MOST_SEEDS)
    return bisect_left(range(most + 1), True, lo=max(most // 2, 2), hi=most, key=enough)


def has_spread(values: ArrayLike) -> bool:
    """Whether there are two values or more, and they are not all the same."""
    return np.size(values) > 1 and bool(np.ptp(values) >= ROUNDING)


def _standard_error(values: NDArray[np.float64]) -> float | None:
    if not has_spread(values):
        return None
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean, resampled, NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=500,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
