"""Statistics of figures: intervals, paired changes, agreement. Computed by scipy and scikit-learn.

Not here: counting (core.attacks.count, core.quality).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, bootstrap, t
from sklearn.metrics import cohen_kappa_score

_RESAMPLES = 4999


def wilson(successes: int, n: int) -> tuple[float, float, float]:
    """A rate and its 95 % Wilson interval; 0 in [0, 1] if n is 0."""
    if n == 0:
        return 0.0, 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return successes / n, float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], *, minimum: float, maximum: float) -> tuple[float, float, float]:
    """A mean and its 95 % t interval, clipped to the range of the value; the whole range with fewer than 2 values."""
    if not values:
        return minimum, minimum, maximum
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, minimum, maximum
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(minimum, mean - half), min(maximum, mean + half)


def paired_change(before: Sequence[float], after: Sequence[float], *, span: float) -> tuple[float, float, float]:
    """The mean of after - before over pairs, and its 95 % percentile bootstrap interval.

    `span` is the largest possible difference of one pair. If all pairs differ by the same amount, the bootstrap would
    claim certainty; the interval is then `span` times the upper Wilson limit of the share of pairs that may differ
    otherwise. Without pairs it is [-span, span].
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not len(differences):
        return 0.0, -span, span
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        room = span * wilson(0, len(differences))[2]
        return mean, max(-span, mean - room), min(span, mean + room)
    interval = bootstrap(
        (differences,), np.mean, n_resamples=_RESAMPLES, batch=500, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)


def kappa(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Cohen's kappa of two judges; None if one of them gives a constant verdict, which leaves kappa undefined."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(cohen_kappa_score(one, other))
