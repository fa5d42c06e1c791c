"""A map is doubted for the first reason there is, and for none where there is none."""

from typing import get_args

import numpy as np
import pytest

from core.robustness.doubt import LEAST_BREAK, doubt
from core.spec.analysis import AnalysisSpec, NoisePerturbation, UnitKind
from core.spec.results import Classifier, GroupRobustness, ModuleRobustness, RobustnessResult, SearchStep

COUNT = 4


def module(number: int, drift: float) -> ModuleRobustness:
    return ModuleRobustness(
        module=f"m{number}",
        layer=0,
        type="q",
        parameters=1,
        feature_drift=drift,
        refusal_drift=drift,
        task_gain=1.0,
        feature_drift_spread=0.0,
        refusal_drift_spread=0.0,
    )


def group(kind: UnitKind, number: int, drift: float) -> GroupRobustness:
    return GroupRobustness(
        kind=kind,
        name=f"{kind} {number}",
        modules=1,
        parameters=1,
        feature_drift=drift,
        refusal_drift=drift,
        task_gain=1.0,
        feature_drift_spread=0.0,
        refusal_drift_spread=0.0,
    )


def found(
    drifts: list[float],
    *,
    unit: UnitKind = "circuit",
    proxy: str = "refusal_drift",
    everything: float = 5.0,
    robust: tuple[str, ...] = ("m0",),
    noise: bool = False,
) -> RobustnessResult:
    analysis = AnalysisSpec.model_validate({"unit": unit, "proxy": proxy})
    if noise:
        analysis = analysis.model_copy(update={"perturbation": NoisePerturbation()})
    step = SearchStep(phase="all", size=COUNT, added=None, drift=everything, limit=everything / 10, accepted=False)
    return RobustnessResult(
        analysis=analysis,
        classifier=Classifier(layer=1, accuracy=1.0, auroc=1.0, n_train=8, n_test=8),
        usable=True,
        modules=tuple(module(number, drift) for number, drift in enumerate(drifts)),
        groups=tuple(
            group(kind, number, drift)
            for kind in get_args(UnitKind)
            if kind != "module"
            for number, drift in enumerate(drifts if kind == unit else [1.0, 9.0])
        ),
        joint_feature_drift=1.0,
        joint_refusal_drift=1.0,
        joint_task_gain=1.0,
        order=(),
        robust=robust,
        trace=(step,),
    )


APART = [1.0, 2.0, 3.0, 4.0]


def code(result: RobustnessResult) -> str | None:
    warning = doubt(result)
    return warning.code if warning else None


@pytest.mark.parametrize("unit", get_args(UnitKind))
@pytest.mark.parametrize("proxy", ["refusal_drift", "feature_drift"])
@pytest.mark.parametrize("drifts", [np.linspace(2.0, 2.001, COUNT).tolist(), [0.0] * COUNT])
def test_drifts_that_differ_by_rounding_tell_nothing_apart(unit: UnitKind, proxy: str, drifts: list[float]) -> None:
    assert code(found(drifts, unit=unit, proxy=proxy)) == "no_spread"
    assert code(found(APART, unit=unit, proxy=proxy)) is None


def test_a_stretched_probe_that_breaks_nothing_is_doubted() -> None:
    assert code(found(APART, everything=LEAST_BREAK - 0.01)) == "no_break"
    assert code(found(APART, everything=LEAST_BREAK)) is None
    assert code(found(APART, everything=LEAST_BREAK - 0.01, proxy="feature_drift")) is None, (
        "it has no scale of breaking"
    )
    assert code(found(APART, everything=LEAST_BREAK - 0.01, noise=True)) is None, "noise is no probe"


def test_nothing_that_drifts_is_told_before_anything_else() -> None:
    assert code(found([0.0] * COUNT, everything=0.0)) == "no_drift"


@pytest.mark.parametrize(("unit", "words"), [("circuit", "No circuit"), ("type_band", "No type band")])
def test_an_empty_set_is_told(unit: UnitKind, words: str) -> None:
    warning = doubt(found(APART, unit=unit, robust=()))
    assert warning is not None
    assert warning.code == "none_robust"
    assert warning.message.startswith(words)
