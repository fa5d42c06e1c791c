"""What figures come with: intervals, paired changes, agreement. The arithmetic is scipy's and scikit-learn's.

Not here: what is counted (core.attacks.count, core.quality).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, bootstrap, t
from sklearn.metrics import cohen_kappa_score

_RESAMPLES = 4999


def wilson(successes: int, n: int) -> tuple[float, float, float]:
    """A rate and its 95 % Wilson interval. With n = 0 nothing is known: 0 in [0, 1]."""
    if n == 0:
        return 0.0, 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return successes / n, float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], *, lowest: float, max_rate: float) -> tuple[float, float, float]:
    """A mean and its 95 % t interval, kept inside what the value can be. With fewer than 2 values: that whole range."""
    if not values:
        return lowest, lowest, max_rate
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, lowest, max_rate
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(lowest, mean - half), min(max_rate, mean + half)


def paired_change(before: Sequence[float], after: Sequence[float], *, span: float) -> tuple[float, float, float]:
    """The mean of after - before over pairs, and its 95 % percentile interval over bootstrapped pairs.

    `span` is the most that one pair can differ by. Where no pair differs the bootstrap has nothing to draw from, and
    would claim certainty: then the interval is what Wilson leaves for the share of pairs that might, times `span`. With
    no pairs it is the whole span.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not len(differences):
        return 0.0, -span, span
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        room = span * wilson(0, len(differences))[2]
        return mean, max(-span, mean - room), min(span, mean + room)
    found = bootstrap(
        (differences,), np.mean, n_resamples=_RESAMPLES, batch=500, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return mean, float(found.low), float(found.high)


def kappa(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Cohen's kappa of two judges; None where one always says the same: chance cannot be told from skill there."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(cohen_kappa_score(one, other))
