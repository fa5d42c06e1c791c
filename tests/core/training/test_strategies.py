"""Strategies are pure functions from modules and a robustness map to one factor per module."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import InvalidInput, TrainingFailed
from core.lm.modules import Module
from core.schemas.analysis import AnalysisSpec
from core.schemas.robustness import Classifier, ModuleRobustness, RobustnessResult
from core.schemas.strategy import (
    FreezeLayersStrategy,
    LayerNumbers,
    LayerShares,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    SwatStrategy,
    UniformStrategy,
)
from core.training.strategies import plan

NAMES = st.lists(st.text("abc.0", min_size=1, max_size=8), unique=True, min_size=1, max_size=30)
RATIOS = st.floats(0.001, 1)
DRIFTS = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


def place(name: str, layer: int = 0) -> Module:
    return Module(name, layer, "q", parameters=1)


def places(names: list[str]) -> list[Module]:
    return [place(name) for name in names]


def found(
    drifts: dict[str, float], robust: set[str] | None = None, *, analysis: AnalysisSpec | None = None
) -> RobustnessResult:
    """A robustness map with these refusal drifts and with feature drifts in reverse order."""
    return RobustnessResult(
        analysis=analysis or AnalysisSpec(),
        classifier=Classifier(layer=1, accuracy=1.0, auroc=1.0, n_train=8, n_test=8),
        usable=bool(drifts),
        modules=tuple(
            ModuleRobustness(
                module=name,
                layer=0,
                type="q",
                parameters=4,
                feature_drift=-drift,
                refusal_drift=drift,
                task_gain=0.0,
                feature_drift_spread=0.0,
                refusal_drift_spread=0.0,
            )
            for name, drift in drifts.items()
        ),
        joint_feature_drift=0.0,
        joint_refusal_drift=0.0,
        joint_task_gain=0.0,
        order=tuple(drifts),
        robust=tuple(sorted(robust or set())),
        trace=(),
    )


@given(NAMES)
def test_uniform_gives_every_module_the_standard_rate(names: list[str]) -> None:
    made = plan(UniformStrategy(label="plain"), places(names), None)
    assert made.strategy == "plain"
    assert made.scales == dict.fromkeys(names, 1.0)
    assert made.full_rate == tuple(names)
    assert made.warmup_scales is None


@given(NAMES, RATIOS, st.data())
def test_ml_lr_gives_robust_modules_the_standard_rate_and_the_others_the_ratio(
    names: list[str], ratio: float, data: st.DataObject
) -> None:
    robust = data.draw(st.sets(st.sampled_from(names)))
    made = plan(MlLrStrategy(ratio=ratio), places(names), found(dict.fromkeys(names, 0.0), robust))
    assert made.strategy == "ml_lr"
    assert list(made.scales) == names
    assert all(made.scales[name] == (1.0 if name in robust else ratio) for name in names)
    if ratio < 1:
        assert set(made.full_rate) == robust


def test_robust_modules_that_are_not_trained_are_ignored() -> None:
    assert plan(MlLrStrategy(), [place("a")], found({"a": 0.0, "b": 0.0}, {"a", "b"})).scales == {"a": 1.0}


@pytest.mark.parametrize("strategy", [MlLrStrategy(), MlLrContinuousStrategy(), SwatStrategy()])
def test_strategies_with_an_analysis_need_a_map(
    strategy: MlLrStrategy | MlLrContinuousStrategy | SwatStrategy,
) -> None:
    with pytest.raises(TypeError, match="robustness map"):
        plan(strategy, [place("a")], None)


@given(DRIFTS, RATIOS)
def test_continuous_rates_fall_with_drift_from_1_to_the_ratio(drifts: list[float], ratio: float) -> None:
    named = {f"m{number}": drift for number, drift in enumerate(drifts)}
    scales = plan(MlLrContinuousStrategy(ratio=ratio), places(list(named)), found(named)).scales
    assert all(ratio * (1 - 1e-9) <= scale <= 1 for scale in scales.values())
    for one, drift in named.items():
        for other, more in named.items():
            assert drift > more or scales[one] >= scales[other]
            assert max(0, drift) != max(0, more) or scales[one] == scales[other]
    least, most = min(drifts), max(drifts)
    assert all(scales[name] == 1.0 for name, drift in named.items() if drift <= 0 or drift == least)
    if most > max(0.0, least):
        assert min(scales.values()) == pytest.approx(ratio)


def test_continuous_rates_are_exponential_in_the_relative_drift() -> None:
    drifts = {"none": -3.0, "half": 2.0, "most": 4.0}
    scales = plan(MlLrContinuousStrategy(ratio=0.01), places(list(drifts)), found(drifts)).scales
    assert scales == pytest.approx({"none": 1.0, "half": 0.1, "most": 0.01})
    other = AnalysisSpec(proxy="feature_drift")  # which runs the other way in this map: 3, -2, -4
    scales = plan(MlLrContinuousStrategy(ratio=0.01), places(list(drifts)), found(drifts, analysis=other)).scales
    assert scales == pytest.approx({"none": 0.01, "half": 1.0, "most": 1.0})


@given(NAMES, st.floats(-1, 1), RATIOS)
def test_a_map_without_a_spread_gives_equal_rates(names: list[str], drift: float, ratio: float) -> None:
    made = plan(MlLrContinuousStrategy(ratio=ratio), places(names), found(dict.fromkeys(names, drift)))
    assert set(made.scales.values()) == {1.0}


def test_a_map_without_modules_gives_every_module_the_standard_rate() -> None:
    assert plan(MlLrContinuousStrategy(), places(["a", "b"]), found({})).scales == {"a": 1.0, "b": 1.0}


@given(NAMES, RATIOS, st.data())
def test_swat_trains_robust_modules_first_and_then_all_alike(
    names: list[str], ratio: float, data: st.DataObject
) -> None:
    robust = data.draw(st.sets(st.sampled_from(names)))
    strategy = SwatStrategy(ratio=ratio, warmup_ratio=0.25)
    made = plan(strategy, places(names), found(dict.fromkeys(names, 0.0), robust))
    assert made.scales == dict.fromkeys(names, 1.0)
    assert made.warmup_scales == {name: 1.0 if name in robust else ratio for name in names}
    assert made.warmup_ratio == 0.25


STACK = [place(f"l{layer}.{kind}", layer) for layer in range(10) for kind in "qv"]


def frozen(layers: LayerNumbers | LayerShares) -> set[int]:
    scales = plan(FreezeLayersStrategy(layers=layers), STACK, None).scales
    assert set(scales.values()) <= {0.0, 1.0}
    return {place.layer for place in STACK if scales[place.name] == 0}


def test_layers_are_frozen_by_number_or_by_depth() -> None:
    assert frozen(LayerNumbers(first=2, last=4)) == {2, 3, 4}
    assert frozen(LayerNumbers(first=9, last=9)) == {9}
    assert frozen(LayerShares(first=0.2, last=0.5)) == {2, 3, 4}
    assert frozen(LayerShares(first=0.0, last=0.05001)) == {0}
    assert frozen(LayerShares(first=0.14, last=0.5)) == {1, 2, 3, 4}
    assert frozen(FreezeLayersStrategy().layers) == {2, 3, 4}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_adjacent_ranges_freeze_every_layer_once(one: float, two: float, three: float) -> None:
    first, middle, last = sorted((one, two, three))
    assume(first < middle < last)

    def layers(begin: float, end: float) -> set[int]:
        try:
            return frozen(LayerShares(first=begin, last=end))
        except InvalidInput:
            return set()
        except TrainingFailed:
            return set(range(10))

    assert layers(first, middle) | layers(middle, last) == layers(first, last)
    assert not layers(first, middle) & layers(middle, last)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (LayerNumbers(first=8, last=10), "this model has 10 layers. Use numbers from 0 to 9"),
        (LayerShares(first=0.5, last=0.51), "depth of 10 layers"),
    ],
)
def test_layers_that_the_model_does_not_have_are_rejected(layers: LayerNumbers | LayerShares, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        plan(FreezeLayersStrategy(layers=layers), STACK, None)
    assert (caught.value.code, caught.value.param) == ("no_such_layers", "strategy.layers")


def test_a_named_set_is_trained_like_a_robust_set() -> None:
    made = plan(ModulesStrategy(label="mine", full_rate=("b",), ratio=0.2), places(["a", "b"]), None)
    assert (made.strategy, made.scales) == ("mine", {"a": 0.2, "b": 1.0})
    assert plan(ModulesStrategy(label="mine", full_rate=(), ratio=0.2), places(["a"]), None).scales == {"a": 0.2}


def test_unknown_module_names_are_rejected_and_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(ModulesStrategy(label="mine", full_rate=("a", "x", "y", "z", "w")), places(["a", "b"]), None)
    assert caught.value.code == "unknown_module"
    assert "4 of the modules" in caught.value.message
    assert "'x', 'y', 'z', ..." in caught.value.message
    assert "such as 'a'" in caught.value.message


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (MlLrStrategy(ratio=0), "no module is robust and the ratio is 0"),
        (SwatStrategy(), "no module is robust and the ratio is 0"),
        (ModulesStrategy(label="mine", full_rate=(), ratio=0), "full_rate names no module and the ratio is 0"),
        (FreezeLayersStrategy(layers=LayerNumbers(first=0, last=9)), "contain every module"),
    ],
)
def test_a_plan_that_trains_nothing_fails_with_advice(
    strategy: MlLrStrategy | SwatStrategy | ModulesStrategy | FreezeLayersStrategy, says: str
) -> None:
    with pytest.raises(TrainingFailed, match=says) as caught:
        plan(strategy, STACK, found({place.name: 1.0 for place in STACK}))
    assert (caught.value.code, caught.value.param) == ("nothing_to_train", "strategy")
    assert repr(strategy.label) in caught.value.message
