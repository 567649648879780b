"""How far a mean is known, and when a difference between rows is more than the seeds' spread."""

from collections.abc import Mapping, Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9999


def resolved_best(values: Mapping[str, Sequence[float]]) -> str | None:
    """Return the row with the lowest mean, if it is resolved against the next one.

    It is where the t-interval (95 %) of the difference, paired by seed, excludes 0. None with
    fewer than two seeds, fewer than two rows, or differences without any spread to judge by.

    Args:
        values: for each row its values, in the same order of seeds.
    """
    if len(values) < 2 or min(map(len, values.values())) < 2:
        return None
    from scipy.stats import ttest_rel  # takes most of a second; one seed does not need it

    first, second = sorted(values, key=lambda row: float(np.mean(values[row])))[:2]
    # Errors are multiples of 100/n: a smaller spread of their differences is rounding.
    if np.ptp(np.subtract(values[first], values[second])) < 1e-6:
        return None
    interval = ttest_rel(values[first], values[second]).confidence_interval(CONFIDENCE)
    return first if interval.high < 0 else None


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean, resampled with a fixed generator.

    NaN for fewer than two values, which cannot be resampled.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
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


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % t-interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1)
    half /= np.sqrt(len(values))
    mean = np.mean(values)
    return float(mean - half), float(mean + half)
