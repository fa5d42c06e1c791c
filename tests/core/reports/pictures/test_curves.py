"""Curves during training: all runs, few points, a readable axis, and no picture without data."""

import pytest

from core.reports.pictures.curves import losses, security
from core.schemas.results import Report, SecurityStep, TrainedStep
from tests.core.reports.svg import paths, texts


def trained(report: Report, values: list[float]) -> Report:
    curve = tuple(TrainedStep(step=step, loss=loss, learning_rate=1e-3) for step, loss in enumerate(values, 1))
    training = tuple(result.model_copy(update={"curve": curve}) for result in report.training)
    return report.model_copy(update={"training": training})


def test_every_run_has_a_curve_and_a_label(whole: Report) -> None:
    for picture in (losses(whole), security(whole)):
        assert picture is not None
        assert {"ml_lr", "uniform"} <= set(texts(picture))
        assert "ml_lr: " in picture.alt
    picture = losses(whole)
    assert picture is not None
    assert picture.alt == "ml_lr: 2.100 at step 1, 0.100 at step 3; uniform: 3.000 at step 1, 1.000 at step 3."


def test_validation_loss_has_a_panel_if_it_was_measured(report: Report, whole: Report) -> None:
    without, with_it = losses(report), losses(whole)
    assert without is not None
    assert with_it is not None
    assert "Validation rows" not in texts(without)
    assert "Validation rows" in texts(with_it)
    assert "over 10 validation rows" in with_it.caption


def test_refusal_drift_is_drawn_with_the_base_model_if_it_was_measured(report: Report, whole: Report) -> None:
    assert security(report) is None
    picture = security(whole)
    assert picture is not None
    assert "base" in texts(picture)
    assert picture.alt == "ml_lr: 0.000 at step 0, 0.750 at step 3; uniform: 0.000 at step 0, 4.500 at step 3."
    first, second = whole.training
    one = whole.model_copy(update={"training": (first, second.model_copy(update={"security": ()}))})
    alone = security(one)
    assert alone is not None
    assert "uniform" not in texts(alone)


@pytest.mark.parametrize(("lowest", "logarithmic"), [(0.5, False), (0.1, True), (0.0, False)])
def test_wide_range_of_losses_has_a_logarithmic_axis(report: Report, lowest: float, logarithmic: bool) -> None:
    picture = losses(trained(report, [3.0, 1.0, lowest]))
    assert picture is not None
    assert ("loss, nats per token (logarithmic)" in texts(picture)) == logarithmic


def test_long_curves_are_averaged_and_say_so(report: Report) -> None:
    picture = losses(trained(report, [2 + (-1) ** step for step in range(400)]))
    assert picture is not None
    assert "mean of up to 10 logged steps" in picture.caption
    lines = [path for path in paths(picture, style="stroke-width:1.8") if path.count("L") > 5]
    assert [path.count("L") for path in lines] == [39, 39]
    assert len(picture.svg) < 60_000


@pytest.mark.parametrize("drift", [0.0, -0.5])
def test_curve_of_one_point(report: Report, drift: float) -> None:
    one = trained(report, [0.0])
    reading = (SecurityStep(step=0, refusal_drift=drift),)
    training = tuple(result.model_copy(update={"security": reading}) for result in one.training)
    assert losses(one) is not None
    assert security(one.model_copy(update={"training": training})) is not None


def test_no_picture_without_training(report: Report) -> None:
    assert losses(trained(report, [])) is None
