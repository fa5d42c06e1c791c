"""Heat maps: cells have the colour of their value, robust modules a frame, and uniform plans no picture."""

import pytest

from core.reports.pictures import draw
from core.reports.pictures.canvas import Picture
from core.reports.pictures.heat import colour, rates, robustness
from core.schemas.results import Report
from core.schemas.training import LearningPlan
from tests.core.reports.svg import lightness, paths, texts


def filled(picture: Picture, level: int) -> int:
    """Number of cells with the colour of a level, without the colour bar."""
    return sum(path.count("M") for path in paths(picture, style=f"fill:{colour(level)}")) - 1


def test_most_fragile_module_is_the_brightest(report: Report) -> None:
    picture = robustness(report.robustness[0])  # drifts of 0, 4, -1 and 1
    assert [filled(picture, level) for level in (0, 6, 12, 31)] == [1, 1, 1, 1]
    assert sum(filled(picture, level) for level in range(32)) == 4
    assert {"0.00", "4.00", "\N{MINUS SIGN}1.00", "1.00"} <= set(texts(picture))
    assert "v of layer 0 (4.000)" in picture.alt


def test_robust_modules_have_a_frame_visible_on_every_colour(report: Report) -> None:
    result = report.robustness[0]
    picture = robustness(result)
    for ink in ("#000000", "#fefefe"):
        assert [path.count("M") for path in paths(picture, style=f"fill:none;stroke:{ink}")] == [2]
    none = robustness(result.model_copy(update={"robust": ()}))
    assert list(paths(none, style="stroke:#000000")) == []
    assert "2 of 4 modules" in picture.caption
    assert "q 2 of 2, v 0 of 1, own 0 of 1" in picture.alt


def test_map_follows_the_proxy_of_the_analysis(report: Report) -> None:
    result = report.robustness[0]
    other = result.model_copy(update={"analysis": result.analysis.model_copy(update={"proxy": "feature_drift"})})
    assert "feature drift, class distances" in texts(robustness(other))
    assert {"0.40", "\N{MINUS SIGN}0.10"} <= set(texts(robustness(other)))


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_map_of_equal_values(report: Report, drift: float) -> None:
    result = report.robustness[0]
    flat = tuple(row.model_copy(update={"refusal_drift": drift}) for row in result.modules)
    picture = robustness(result.model_copy(update={"modules": flat}))
    assert sum(filled(picture, level) for level in range(32)) == 4
    assert f"{drift:.3f}" in texts(picture)


def test_deep_model_has_no_values_in_its_cells_and_few_ticks(report: Report) -> None:
    result = report.robustness[0]
    one = result.modules[0]
    many = tuple(
        one.model_copy(update={"module": f"layers.{layer}.q", "layer": layer, "refusal_drift": layer / 80})
        for layer in range(80)
    )
    picture = robustness(result.model_copy(update={"modules": many}))
    assert len(texts(picture)) < 35
    assert len(picture.svg) < 60_000


def test_each_usable_map_has_its_own_picture(report: Report) -> None:
    first, unusable = report.robustness
    three = report.model_copy(update={"robustness": (first, unusable, first)})
    assert [name for name in draw(three) if name.startswith("robustness")] == ["robustness", "robustness_2"]


def planned(report: Report, *plans: LearningPlan) -> Report:
    training = tuple(
        result.model_copy(update={"plan": plan}) for result, plan in zip(report.training, plans, strict=False)
    )
    return report.model_copy(update={"training": training})


def test_uniform_plans_are_not_drawn(report: Report) -> None:
    ours, uniform = (result.plan for result in report.training)
    picture = rates(report)
    assert picture is not None
    assert "ml_lr" in texts(picture)
    assert "uniform" not in texts(picture)
    assert "All modules have the same factor in uniform." in picture.caption
    assert "2 of 4 modules at the standard rate, the lowest factor is 0.1" in picture.alt
    assert filled(picture, 31) == 2
    assert filled(picture, 3) == 2
    assert rates(planned(report, uniform, uniform)) is None
    assert rates(planned(report, ours, ours)) is not None


def test_warmup_is_separate_from_the_remaining_steps(report: Report) -> None:
    ours, uniform = (result.plan for result in report.training)
    frozen = {name: float(scale == 1) for name, scale in ours.scales.items()}
    swat = uniform.model_copy(update={"strategy": "swat", "warmup_scales": frozen, "warmup_ratio": 0.3})
    picture = rates(planned(report, swat, uniform))
    assert picture is not None
    assert "swat, first 30 % of the steps (then 1 for all)" in texts(picture)
    both = rates(planned(report, swat.model_copy(update={"scales": ours.scales}), uniform))
    assert both is not None
    assert {"swat, first 30 % of the steps", "swat, remaining steps"} <= set(texts(both))


def test_modules_without_a_map_are_placed_by_name(report: Report) -> None:
    scales = {
        "model.layers.0.self_attn.q_proj": 1.0,
        "model.layers.10.mlp.gate_up_proj[gate]": 0.0,
        "head": 1.0,
    }
    plan = LearningPlan(strategy="frozen", scales=scales)
    picture = rates(planned(report.model_copy(update={"robustness": ()}), plan, plan))
    assert picture is not None
    assert {"0", "10", "q", "gate", "head"} <= set(texts(picture))


def test_values_are_readable_on_their_cells() -> None:
    def contrast(level: int, ink: float) -> float:
        """Contrast ratio of WCAG 2 between a relative luminance and a cell."""
        paper = ((lightness(colour(level)) + 16) / 116) ** 3
        return (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05)

    assert all(contrast(level, 0.99) > 4.5 for level in range(13))
    assert all(contrast(level, 0.0) > 4.5 for level in range(13, 32))
