"""An untrustworthy map gets a warning with the first reason; a good map gets none."""

from typing import get_args

import numpy as np
import pytest

from core.lm.modules import Module
from core.robustness.map_warnings import MAX_P, MIN_BREAK, check_map
from core.robustness.probe_activations import Effect
from core.robustness.search import SearchResult
from core.robustness.summary import build_result
from core.robustness.units import Unit, units
from core.schemas.analysis import AnalysisSpec, NoisePerturbation, UnitKind
from core.schemas.robustness import Classifier, Compared, MapStability, MeasuredAt, RobustnessResult, SearchStep

MODULES = tuple(
    Module(f"layers.{layer}.{kind}", layer=layer, type=kind, parameters=1) for layer in (0, 1) for kind in ("q", "v")
)


def found(
    drifts: list[float],
    *,
    unit: UnitKind = "circuit",
    proxy: str = "refusal_drift",
    everything: float = 5.0,
    robust: bool = True,
    noise: bool = False,
) -> RobustnessResult:
    """A result whose units of the searched kind have these drifts, and all others lie far apart."""
    analysis = AnalysisSpec.model_validate({"unit": unit, "proxy": proxy})
    if noise:
        analysis = analysis.model_copy(update={"perturbation": NoisePerturbation()})
    effects: dict[Unit, Effect] = {}
    for kind in get_args(UnitKind):
        own = drifts if kind == unit else [1.0, 9.0, 1.0, 9.0]
        effects |= {each: Effect(drift, drift, 1.0) for each, drift in zip(units(MODULES, kind, 2), own, strict=False)}
    ordered = [each for each in effects if each.kind == unit]
    step = SearchStep(phase="all", size=4, added=None, drift=everything, limit=everything / 10, accepted=False)
    return build_result(
        analysis,
        Classifier(layer=1, accuracy=1.0, auroc=1.0, n_train=8, n_test=8),
        [effects],
        everything=Effect(1.0, 1.0, 1.0),
        ordered=ordered,
        found=SearchResult(tuple(ordered[:1]) if robust else (), (step,)),
        probe_steps=[40],
        update_scale=2.5,
    )


APART = [1.0, 2.0, 3.0, 4.0]


def code(robustness: RobustnessResult) -> str | None:
    warning = check_map(robustness)
    return warning.code if warning else None


@pytest.mark.parametrize("unit", get_args(UnitKind))
@pytest.mark.parametrize("proxy", ["refusal_drift", "feature_drift"])
@pytest.mark.parametrize("drifts", [np.linspace(2.0, 2.001, 4).tolist(), [0.0] * 4])
def test_drifts_that_differ_by_rounding_have_no_spread(unit: UnitKind, proxy: str, drifts: list[float]) -> None:
    assert code(found(drifts, unit=unit, proxy=proxy)) == "no_spread"
    assert code(found(APART, unit=unit, proxy=proxy)) is None


def test_a_scaled_probe_that_breaks_nothing_gets_a_warning() -> None:
    assert code(found(APART, everything=MIN_BREAK - 0.01)) == "no_break"
    assert code(found(APART, everything=MIN_BREAK)) is None
    assert code(found(APART, everything=MIN_BREAK - 0.01, proxy="feature_drift")) is None, "it has no scale of breaking"
    assert code(found(APART, everything=MIN_BREAK - 0.01, noise=True)) is None, "noise is not a probe"


def test_no_drift_is_the_first_warning() -> None:
    assert code(found([0.0] * 4, everything=0.0)) == "no_drift"


def agreement(between: Compared, *, p_value: float, at: MeasuredAt = "end") -> MapStability:
    return MapStability(
        between=between, at=at, modules=42, spearman=0.13, p_value=p_value, overlap=0.52, overlap_by_chance=0.5
    )


@pytest.mark.parametrize("between", ["seeds", "halves"])
@pytest.mark.parametrize("at", ["break", "end"])
def test_agreement_no_better_than_chance_gets_a_warning(between: Compared, at: MeasuredAt) -> None:
    good = agreement("halves", p_value=MAX_P)
    one = found(APART).model_copy(update={"stability": (good, agreement(between, p_value=MAX_P + 0.01, at=at))})
    warning = check_map(one)
    assert warning is not None
    assert warning.code == "map_not_stable"
    assert f"between {between}" in warning.message
    assert "rank correlation 0.13 over 42 modules, p = 0.06" in warning.message
    assert ("where refusals break" in warning.message) == (at == "break")
    assert code(one.model_copy(update={"stability": (good,)})) is None
    moved = agreement("break_and_end", p_value=0.9)
    assert code(one.model_copy(update={"stability": (good, moved)})) is None, "a map may change after the break"


@pytest.mark.parametrize(("unit", "words"), [("circuit", "No circuit"), ("type_band", "No type band")])
def test_an_empty_robust_set_gets_a_warning(unit: UnitKind, words: str) -> None:
    warning = check_map(found(APART, unit=unit, robust=False))
    assert warning is not None
    assert warning.code == "none_robust"
    assert warning.message.startswith(words)
