"""Units and measurements are counted from sizes alone as from the loaded model."""

import pytest

from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.robustness.expected import FEW_UNITS, count_units, expect_measurements
from core.robustness.units import units
from core.schemas.analysis import AnalysisSpec, GradientPerturbation, NoisePerturbation, SwapPerturbation


@pytest.mark.parametrize("bands", [1, 3, 64])
def test_units_are_counted_as_the_model_has_them(base: BaseModel, bands: int) -> None:
    modules = find_modules(base.model)
    counted = count_units(base.model.config.num_hidden_layers, {module.type for module in modules}, bands)
    assert counted == {kind: len(units(modules, kind, bands)) for kind in counted}


def test_a_gradient_needs_few_measurements_and_a_swap_two_for_each_unit() -> None:
    counted = count_units(6, ("q", "k", "v", "o", "gate", "up", "down"), 3)
    every = sum(counted.values())
    search = 3 * 4 // 2 + 1
    gradient = AnalysisSpec(perturbation=GradientPerturbation(points=5, seeds=2))
    assert expect_measurements(gradient, counted) == 10 + search
    assert expect_measurements(AnalysisSpec(perturbation=SwapPerturbation()), counted) == 2 * every + search
    assert expect_measurements(AnalysisSpec(perturbation=NoisePerturbation(seeds=3)), counted) == 3 * every + search
    many = AnalysisSpec(perturbation=NoisePerturbation(seeds=1), unit="module")
    assert counted["module"] > FEW_UNITS
    assert expect_measurements(many, counted) < every + counted["module"], "a bisection, not every order"
