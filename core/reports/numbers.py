"""Figures as text: one format for the gate's reasons, the report page, the model card, the pictures and the terminal.

Rates are printed in percent and differences of rates in percentage points, both with one decimal that is left out if
it is 0; other figures have two decimals. Not here: text from a job (core.reports.text).
"""

from core.schemas.metrics import Metric

RATES: frozenset[Metric] = frozenset({"attack_success_rate", "over_refusal_rate", "exact_match", "accuracy"})
"""Metrics that are shares, 0 to 1."""


def percent(share: float) -> str:
    """A share in percent, such as `83.8 %`."""
    return f"{_short(100 * share)} %"


def points(difference: float) -> str:
    """A bound on the difference of two shares, such as `10 points`."""
    return f"{_short(100 * difference)} points"


def value(metric: Metric, number: float) -> str:
    """A figure with its unit."""
    return _bare(metric, number) + (" %" if metric in RATES else "")


def interval(metric: Metric, low: float, high: float) -> str:
    """Both limits of a figure's interval, such as `74.2 to 90.3`, in the unit of `value`."""
    return f"{_bare(metric, low)} to {_bare(metric, high)}"


def change(metric: Metric, difference: float) -> str:
    """The difference of two figures with its sign and unit, such as `+12.5 points`."""
    return _bare(metric, difference, "+") + (" points" if metric in RATES else "")


def distance(metric: Metric, difference: float) -> str:
    """The size of a difference without its sign, such as `12.5 points`, in the unit of `change`."""
    return change(metric, abs(difference)).removeprefix("+")


def change_interval(metric: Metric, low: float, high: float) -> str:
    """Both limits of a difference's interval, such as `-1.2 to +20`, in the unit of `change`."""
    return f"{_bare(metric, low, '+')} to {_bare(metric, high, '+')}"


def plural(count: int, singular: str, several: str | None = None) -> str:
    """A count with its noun, such as `1 family` or `3 families`."""
    return f"{count:,} {singular if count == 1 else several or f'{singular}s'}"


def _short(number: float, sign: str = "") -> str:
    """A number with one decimal, without a trailing `.0`."""
    return f"{number:{sign}.1f}".removesuffix(".0")


def _bare(metric: Metric, number: float, sign: str = "") -> str:
    return _short(100 * number, sign) if metric in RATES else f"{number:{sign}.2f}"
