"""Controls are what they say: as many parameters, everything else, another model's types and depths."""

import pytest

from core.lm.modules import Module
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import Classifier, ModuleRobustness, RobustnessResult
from research.experiments.runs import CONTROLS, controls, random_set, strategies, uniform
from research.experiments.spec import Settings
from research.experiments.transfer import transferred

SETTINGS = Settings(tuning_set="instructions", rates=(1e-3,))


def stack(layers: int, types: tuple[str, ...] = ("q", "o", "up")) -> tuple[Module, ...]:
    return tuple(
        Module(name=f"layers.{layer}.{kind}", layer=layer, type=kind, parameters=10 * (place + 1))
        for layer in range(layers)
        for place, kind in enumerate(types)
    )


def test_another_length_changes_nothing_else() -> None:
    assert SETTINGS.with_steps(None) == SETTINGS
    longer = SETTINGS.with_steps(240)
    assert (longer.steps, longer.model_copy(update={"steps": SETTINGS.steps})) == (240, SETTINGS)


def found(modules: tuple[Module, ...], robust: tuple[str, ...]) -> RobustnessResult:
    rows = tuple(
        ModuleRobustness(
            module=module.name,
            layer=module.layer,
            type=module.type,
            parameters=module.parameters,
            feature_drift=0.0,
            refusal_drift=0.0 if module.name in robust else 1.0,
            task_gain=1.0,
            feature_drift_spread=0.0,
            refusal_drift_spread=0.0,
        )
        for module in modules
    )
    return RobustnessResult(
        analysis=AnalysisSpec(),
        classifier=Classifier(layer=1, accuracy=1.0, auroc=1.0, n_train=8, n_test=8),
        usable=True,
        modules=rows,
        joint_feature_drift=0.0,
        joint_refusal_drift=1.0,
        joint_task_gain=1.0,
        order=(),
        robust=robust,
        trace=(),
    )


MODULES = stack(6)
ROBUST = tuple(module.name for module in MODULES if module.type == "q")


@pytest.mark.parametrize("seed", range(5))
def test_a_random_set_has_nearly_as_many_parameters(seed: int) -> None:
    names = random_set(MODULES, frozenset(ROBUST), seed)
    size = sum(module.parameters for module in MODULES if module.name in names)
    assert 60 - 30 < size <= 60
    assert len(set(names)) == len(names)
    assert names == random_set(MODULES, frozenset(ROBUST), seed)


def test_random_sets_of_other_seeds_are_others() -> None:
    assert len({random_set(MODULES, frozenset(ROBUST), seed) for seed in range(5)}) > 1


def test_the_inverse_is_everything_else() -> None:
    plans = controls(SETTINGS, MODULES, found(MODULES, ROBUST), ROBUST[:1], seed=0)
    assert set(plans) <= set(CONTROLS)
    assert set(plans["inverse"].full_rate) == {module.name for module in MODULES} - set(ROBUST)
    assert plans["recipe"].full_rate == ROBUST[:1]
    assert plans["inverse"].scales[ROBUST[0]] == SETTINGS.ratio


def test_a_set_of_everything_has_no_inverse() -> None:
    everything = tuple(module.name for module in MODULES)
    assert "inverse" not in controls(SETTINGS, MODULES, found(MODULES, everything), ROBUST, seed=0)


def test_strategies_are_the_products_own() -> None:
    plans = strategies(SETTINGS, MODULES, found(MODULES, ROBUST))
    assert {"ml_lr", "ml_lr_continuous", "swat", "freeze_layers"} == set(plans)
    assert set(plans["ml_lr"].full_rate) == set(ROBUST)
    assert set(uniform(MODULES).full_rate) == {module.name for module in MODULES}


def test_a_map_is_carried_over_by_type_and_depth() -> None:
    robust = tuple(f"layers.{layer}.{kind}" for layer, kind in ((0, "q"), (1, "q"), (4, "o"), (5, "o")))
    source = found(MODULES, robust)
    other = stack(3, ("o", "q", "dense"))
    assert set(transferred(source, MODULES, other, 3)) == {"layers.0.q", "layers.2.o"}


def test_most_of_a_type_in_a_band_decides() -> None:
    source = found(MODULES, ("layers.0.q",))
    assert transferred(source, MODULES, MODULES, 3) == ()
