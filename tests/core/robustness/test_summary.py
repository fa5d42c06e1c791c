"""The result contains means and spreads over seeds, modules, groups and the robust set."""

from typing import get_args

from core.lm.modules import Module
from core.robustness.probe_activations import Effect
from core.robustness.search import SearchResult
from core.robustness.summary import build_result, no_signal_result
from core.robustness.units import Unit, units
from core.schemas.analysis import AnalysisSpec, UnitKind
from core.schemas.robustness import Classifier, RobustnessResult

ANALYSIS = AnalysisSpec(bands=2)
CLASSIFIER = Classifier(layer=2, accuracy=1.0, auroc=1.0, n_train=8, n_test=8)
MODULES = tuple(
    Module(name=f"layers.{layer}.{kind}", layer=layer, type=kind, parameters=size)
    for layer in range(2)
    for kind, size in (("q", 4), ("v", 6))
)
ALL = tuple(unit for kind in get_args(UnitKind) for unit in units(MODULES, kind, 2))


def effects(number: float) -> dict[Unit, Effect]:
    return {unit: Effect(place * number, 10 * place * number, number) for place, unit in enumerate(ALL)}


def summed(drifts: tuple[float, ...] = (1.0, 3.0)) -> RobustnessResult:
    chosen = [unit for unit in ALL if unit.kind == "type_band"]
    return build_result(
        ANALYSIS,
        CLASSIFIER,
        [effects(number) for number in drifts],
        everything=Effect(0.5, 5.0, 2.0),
        ordered=chosen,
        found=SearchResult((chosen[2], chosen[0]), ()),
        probe_steps=[10, 25],
        update_scale=3.0,
    )


def test_modules_and_groups_have_a_mean_and_a_spread() -> None:
    found = summed()
    assert [row.module for row in found.modules] == [module.name for module in MODULES]
    assert [(row.kind, row.name, row.modules, row.parameters) for row in found.groups] == [
        ("circuit", "qk", 2, 8),
        ("circuit", "ov", 2, 12),
        ("type", "q", 2, 8),
        ("type", "v", 2, 12),
        ("band", "layer 0", 2, 10),
        ("band", "layer 1", 2, 10),
        ("type_band", "q, layer 0", 1, 4),
        ("type_band", "v, layer 0", 1, 6),
        ("type_band", "q, layer 1", 1, 4),
        ("type_band", "v, layer 1", 1, 6),
    ]
    for place, row in enumerate([*found.modules, *found.groups]):
        assert (row.feature_drift, row.refusal_drift, row.task_gain) == (2.0 * place, 20.0 * place, 2.0)
        assert (row.feature_drift_spread, row.refusal_drift_spread) == (place, 10.0 * place)
    assert (found.joint_feature_drift, found.joint_refusal_drift, found.joint_task_gain) == (0.5, 5.0, 2.0)
    assert (found.probe_steps, found.update_scale) == ((10, 25), 3.0)


def test_one_seed_has_no_spread() -> None:
    rows = summed((2.0,)).groups
    assert {row.refusal_drift_spread for row in rows} == {row.feature_drift_spread for row in rows} == {0.0}


def test_robust_modules_are_counted_by_type_and_depth() -> None:
    found = summed()
    assert found.order == ("q, layer 0", "v, layer 0", "q, layer 1", "v, layer 1")
    assert found.robust == ("layers.1.q", "layers.0.q")
    assert [(each.kind, each.name, each.robust, each.modules) for each in found.chosen] == [
        ("circuit", "qk", 2, 2),
        ("circuit", "ov", 0, 2),
        ("type", "q", 2, 2),
        ("type", "v", 0, 2),
        ("band", "layer 0", 1, 2),
        ("band", "layer 1", 1, 2),
    ]


def test_without_a_security_feature_every_module_is_robust() -> None:
    found = no_signal_result(ANALYSIS, CLASSIFIER, MODULES)
    assert not found.usable
    assert found.robust == tuple(module.name for module in MODULES)
    assert (found.modules, found.groups, found.chosen, found.order, found.trace) == ((), (), (), (), ())
