"""What the page shows is what was measured: cells, squares of the map, points of the curves."""

import pytest

from core.reports.view import Cell, arms, curves, robustness_map, table
from core.spec.results import Report, TrainedStep


def test_arms_begin_with_the_base(report: Report) -> None:
    assert arms(report) == ("base", "ml_lr", "uniform")


def test_the_table_has_a_row_for_each_figure_and_a_column_for_each_arm(report: Report) -> None:
    rows = table(report)
    assert [row.title for row in rows] == [
        "Attack success, direct",
        "Over-refusal of safe look-alikes",
        "Validation loss, nats per token",
    ]
    assert rows[0].cells == (
        Cell("12.5 %", "6.2 % to 25.0 %", "n = 64, judge refusal_phrases"),
        Cell("25.0 %", "12.5 % to 50.0 %", "n = 64, 1 undecided, judge refusal_phrases"),
        Cell("37.5 %", "18.8 % to 75.0 %", "n = 64, 2 undecided, judge refusal_phrases"),
    )
    # Nobody decided anything: that is not 0 %. Where nothing was measured, nothing stands.
    assert rows[1].cells == (
        Cell("unknown", "0.0 % to 100.0 %", "n = 0, 64 undecided, judge refusal_phrases"),
        None,
        None,
    )
    assert rows[2].cells[0] == Cell("1.25", "0.06 to 0.25", "n = 64")


def test_the_map_has_layers_down_and_types_across(report: Report) -> None:
    found = robustness_map(report.robustness[0])
    assert found.types == ("q", "v", "own")
    assert [layer for layer, _ in found.layers] == [0, 1]
    (first, second) = [squares for _, squares in found.layers]
    assert [square and (square.strength, square.robust) for square in first] == [(0.0, True), (1.0, False), None]
    assert [square and (square.strength, square.robust) for square in second] == [(0.0, True), None, (0.25, False)]
    assert found.by_type == (("q", 2, 2), ("v", 0, 1), ("own", 0, 1))
    assert first[1] is not None
    assert first[1].title == ("layers.0.v: refusal drift 4.000, feature drift 0.400, task gain 0.500, not robust")


def test_the_map_follows_the_proxy_that_was_asked_for(report: Report) -> None:
    result = report.robustness[0]
    other = result.model_copy(update={"analysis": result.analysis.model_copy(update={"proxy": "feature_drift"})})
    assert robustness_map(other) != robustness_map(result)
    nothing = result.model_copy(
        update={"modules": tuple(row.model_copy(update={"refusal_drift": -1.0}) for row in result.modules)}
    )
    strengths = {square.strength for _, row in robustness_map(nothing).layers for square in row if square}
    assert strengths == {0.0}


def points(text: str) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in text.split())
    return [(float(x), float(y)) for x, y in pairs]


def test_curves_share_their_axes(report: Report) -> None:
    first, second = curves(report)
    assert (first.arm, second.arm) == ("ml_lr", "uniform")
    assert (first.first, first.last) == pytest.approx((2.1, 0.1))
    assert points(second.points)[0] == (0.0, 0.0)  # the highest loss of all, at the top
    assert points(first.points)[0] == (0.0, pytest.approx(180 * 0.9 / 3, abs=0.06))
    for curve in (first, second):
        assert [x for x, _ in points(curve.points)] == [0.0, 320.0, 640.0]
        assert all(0 <= y <= 180 for _, y in points(curve.points))


@pytest.mark.parametrize("loss", [0.0, 2.5])
def test_one_step_is_a_curve_too(report: Report, loss: float) -> None:
    one = report.training[0].model_copy(update={"curve": (TrainedStep(step=1, loss=loss, learning_rate=1e-3),)})
    (curve,) = curves(report.model_copy(update={"training": (one,)}))
    assert all(0 <= y <= 180 for _, y in points(curve.points))
