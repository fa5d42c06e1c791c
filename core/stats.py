"""The two intervals that every figure comes with. The arithmetic is scipy's.

Not here: comparisons of two models.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, t


def wilson(successes: int, n: int) -> tuple[float, float, float]:
    """A rate and its 95 % Wilson interval. With n = 0 nothing is known: 0 in [0, 1]."""
    if n == 0:
        return 0.0, 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return successes / n, float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], *, lowest: float, highest: float) -> tuple[float, float, float]:
    """A mean and its 95 % t interval, kept inside what the value can be. With fewer than 2 values: that whole range."""
    if not values:
        return lowest, lowest, highest
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, lowest, highest
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(lowest, mean - half), min(highest, mean + half)
