"""Figures have one text format."""

import pytest

from core.reports.numbers import change, change_interval, distance, interval, percent, plural, points, value


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.025, "2.5 %"), (0.5, "50 %"), (0.9996, "100 %"), (1.0, "100 %")]
)
def test_percent_has_at_most_one_decimal(share: float, text: str) -> None:
    assert percent(share) == text


def test_rates_are_in_percent_and_other_metrics_are_not() -> None:
    assert value("attack_success_rate", 0.125) == "12.5 %"
    assert value("loss", 0.125) == "0.12"
    assert interval("over_refusal_rate", 0.125, 0.25) == "12.5 to 25"
    assert interval("loss", 0.5, 1.25) == "0.50 to 1.25"


def test_differences_of_rates_are_in_points_with_a_sign() -> None:
    assert points(0.1) == "10 points"
    assert change("accuracy", 0.125) == "+12.5 points"
    assert change("loss", -0.5) == "-0.50"
    assert [distance("accuracy", size) for size in (-0.125, 0.125)] == ["12.5 points"] * 2
    assert change_interval("exact_match", -0.0125, 0.2) == "-1.2 to +20"
    assert change_interval("loss", -0.5, 0.25) == "-0.50 to +0.25"


@pytest.mark.parametrize(("count", "text"), [(0, "0 families"), (1, "1 family"), (2000, "2,000 families")])
def test_nouns_agree_with_their_count(count: int, text: str) -> None:
    assert plural(count, "family", "families") == text
