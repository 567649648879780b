"""How far a mean is known, and when a difference between rows is more than the seeds' spread."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
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


def one_sided(differences: ArrayLike, low: float, high: float) -> tuple[float, float]:
    """Return the p-values of paired t-tests that a mean is inside, and outside, of an interval.

    Inside both ends, which may be infinite, are tested, and the larger p counts. Both p are 1 with
    one seed and where all differences are equal.
    """
    values = np.asarray(differences, dtype=float)
    error = _standard_error(values)
    if error is None:
        return 1.0, 1.0
    from scipy.special import stdtr  # Student's t-distribution function

    t = (values.mean() - np.array([low, high])) / error
    below, above = stdtr(len(values) - 1, t), stdtr(len(values) - 1, -t)
    return float(max(above[0], below[1])), float(min(below[0], above[1]))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for a family of tests (Holm 1979).

    Calling those of at most `ALPHA` significant, the chance of one or more false calls in the whole
    family is at most `ALPHA`, however the tests depend on each other.
    """
    p = np.array(p_values, dtype=float)
    order = np.argsort(p)
    # The smallest is compared with alpha/m, the next with alpha/(m-1), and so on until one fails.
    p[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return p


def seeds_needed(
    differences: ArrayLike, cuts: Sequence[float], level: float
) -> int | Literal[">1000"] | None:
    """Return how many seeds would decide a comparison in 80 % of all repetitions.

    It takes the observed mean and spread for the true ones, and the power of the two-sided paired
    t-test from the noncentral t-distribution. None without a spread.

    Args:
        cuts: the means that the test must tell the true one from; the nearest binds.
        level: of one test, such as ALPHA divided by the number of tests.
    """
    if not has_spread(differences):
        return None
    values = np.asarray(differences, dtype=float)
    from scipy import stats

    distance = min(abs(float(values.mean()) - cut) for cut in cuts)
    effect = distance / float(values.std(ddof=1))

    def enough(n: int) -> bool:
        # The tail in the other direction would be a false call, not power.
        critical = stats.t.isf(level / 2, n - 1)
        return bool(stats.nct.sf(critical, n - 1, effect * math.sqrt(n)) >= POWER)

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
