"""The search stays within the budget, measures few sets, and records its steps."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lm.modules import Module
from core.robustness.probe_activations import Effect
from core.robustness.search import (
    SearchResult,
    order_by_growth,
    order_units,
    search_robust_set,
    select_by_parameter_share,
)
from core.robustness.units import Unit
from core.schemas.analysis import AnalysisSpec

DRIFTS = st.lists(st.floats(-2, 10).map(lambda drift: round(drift, 3)), max_size=70)
BUDGETS = st.floats(0.01, 1.0)


def unit(name: str, parameters: int = 1) -> Unit:
    return Unit("module", name, (Module(name=name, layer=0, type="q", parameters=parameters),))


class Additive:
    """A joint drift that is the sum of the units' drifts. Records the measured sets."""

    def __init__(self, drifts: Sequence[float]) -> None:
        self.by_name = {f"m{number}": drift for number, drift in enumerate(drifts)}
        self.measured: list[frozenset[str]] = []

    def __call__(self, units: Sequence[Unit]) -> float:
        names = [each.name for each in units]
        assert len(set(names)) == len(names)
        self.measured.append(frozenset(names))
        return math.fsum(self.by_name[name] for name in names)

    @property
    def ordered(self) -> list[Unit]:
        return [unit(name) for name in sorted(self.by_name, key=self.by_name.__getitem__)]


def test_a_set_grows_by_the_unit_that_adds_least_drift() -> None:
    # Alone b drifts less than c, beside a it drifts more: as halves of a circuit do.
    alone = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 9.0}
    measured: list[frozenset[str]] = []

    def drift(units: Sequence[Unit]) -> float:
        names = frozenset(each.name for each in units)
        measured.append(names)
        return math.fsum(alone[name] for name in names) + (50.0 if {"a", "b"} <= names else 0.0)

    found = order_by_growth([unit(name) for name in "dcba"], drift)
    assert [each.name for each in found] == ["a", "c", "d", "b"]
    assert len(measured) == len(set(measured)) == 4 + 3 + 2


@given(st.lists(st.floats(-2, 10), max_size=8))
def test_growing_keeps_every_unit_and_measures_few_sets(drifts: list[float]) -> None:
    joint = Additive(drifts)
    found = order_by_growth(joint.ordered, joint)
    assert sorted(each.name for each in found) == sorted(joint.by_name)
    assert len(joint.measured) <= 35


@given(DRIFTS, BUDGETS)
def test_the_set_is_inside_the_budget_and_found_with_few_measurements(drifts: list[float], budget: float) -> None:
    joint = Additive(drifts)
    found = search_robust_set(joint.ordered, budget=budget, joint=joint)
    everything = math.fsum(drifts)
    count = len(joint.measured)
    assert count <= 1 + math.ceil(math.log2(max(1, len(drifts)))) + 8
    assert len(set(joint.measured)) == count, "a set was measured twice"
    assert len(set(found.robust)) == len(found.robust)
    assert set(found.robust) <= set(joint.ordered)
    if found.robust:
        assert joint(found.robust) <= budget * everything
    consistent(found, joint, budget * everything, count)


def consistent(found: SearchResult, joint: Additive, limit: float, count: int) -> None:
    """The trace names every question, in order, and the subset is the last set that was accepted."""
    assert [step.size for step in found.trace] == [len(names) for names in joint.measured[:count]]
    assert found.trace[0].phase == "all"
    for step, names in zip(found.trace, joint.measured, strict=False):
        assert step.drift == joint([each for each in joint.ordered if each.name in names])
        assert step.limit == limit
        assert step.accepted == (step.drift <= limit)
        assert (step.added is not None) == (step.phase == "local_pass")
        assert step.added is None or step.added in names
    accepted = [names for step, names in zip(found.trace, joint.measured, strict=False) if step.accepted]
    assert {each.name for each in found.robust} == (accepted[-1] if accepted else set())
    phases = [step.phase for step in found.trace]
    assert phases == sorted(phases, key=["all", "binary_search", "local_pass"].index)


@given(st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=70), BUDGETS)
def test_the_longest_prefix_inside_the_budget_is_chosen(drifts: list[float], budget: float) -> None:
    joint = Additive(drifts)
    found = search_robust_set(joint.ordered, budget=budget, joint=joint)
    longest, spent = 0, 0.0
    for each in joint.ordered:
        spent += joint.by_name[each.name]
        if spent > budget * math.fsum(drifts):
            break
        longest += 1
    assert list(found.robust[:longest]) == joint.ordered[:longest]


@given(st.lists(st.floats(-5, 0), max_size=40), BUDGETS)
def test_without_drift_all_units_are_robust(drifts: list[float], budget: float) -> None:
    joint = Additive(drifts)
    found = search_robust_set(joint.ordered, budget=budget, joint=joint)
    assert list(found.robust) == joint.ordered
    assert len(joint.measured) == 1


@pytest.mark.parametrize("count", [1, 2, 9, 42])
def test_no_unit_is_robust_if_each_exceeds_the_budget(count: int) -> None:
    ordered = [unit(f"m{number}") for number in range(count)]
    found = search_robust_set(ordered, budget=0.25, joint=lambda units: 1.0 if units else 0.0)
    assert found.robust == ()
    assert not any(step.accepted for step in found.trace)


def test_a_map_without_modules() -> None:
    assert search_robust_set([], budget=0.5, joint=lambda _: 0.0).robust == ()


def test_a_unit_beyond_the_prefix_is_still_tried() -> None:
    # c alone breaks the budget; d, behind it in the order, does not when it joins a and b.
    def joint(units: Sequence[Unit]) -> float:
        return math.fsum({"a": 1.0, "b": 1.0, "c": 50.0, "d": 3.0, "e": 45.0}[each.name] for each in units)

    found = search_robust_set([unit(name) for name in "abcde"], budget=0.06, joint=joint)
    assert [each.name for each in found.robust] == ["a", "b", "d"]
    tried = [step.added for step in found.trace if step.phase == "local_pass"]
    assert tried == ["d", "e"]


def test_the_local_pass_tries_eight_units() -> None:
    drifts = [0.0] * 10 + [100.0] * 30
    joint = Additive(drifts)
    found = search_robust_set(joint.ordered, budget=0.01, joint=joint)
    assert len(found.robust) == 10
    assert sum(step.phase == "local_pass" for step in found.trace) == 8


def test_steps_count_the_modules_of_groups() -> None:
    pair = Unit("type", "q", tuple(Module(name=name, layer=0, type="q", parameters=1) for name in ("q0", "q1")))
    found = search_robust_set([pair, unit("v")], budget=0.5, joint=lambda units: float(len(units)))
    assert found.robust == (pair,)
    assert [step.size for step in found.trace] == [3, 2]


def test_the_largest_map_is_searched_with_few_measurements() -> None:
    joint = Additive([1.0 + number / 1000 for number in range(224)])
    found = search_robust_set(joint.ordered, budget=0.3, joint=joint)
    assert 60 < len(found.robust) < 80
    assert len(joint.measured) <= 17


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(SIZES, st.floats(0.01, 1.0))
def test_a_share_of_the_parameters_is_filled_and_not_exceeded(sizes: list[int], share: float) -> None:
    ordered = [unit(f"m{number}", size) for number, size in enumerate(sizes)]
    found = select_by_parameter_share(ordered, share=share, joint=lambda units: float(len(units)))
    taken = sum(each.parameters for each in found.robust)
    left = share * sum(sizes) - taken
    assert left >= 0
    assert all(each.parameters > left for each in ordered if each not in found.robust), "there was room for another"
    assert sorted(found.robust, key=ordered.index) == list(found.robust)
    everything, chosen = found.trace
    assert (everything.phase, everything.drift, everything.size) == ("all", len(sizes), len(sizes))
    assert (chosen.phase, chosen.drift, chosen.size) == ("parameter_share", len(found.robust), len(found.robust))


def test_the_parameter_share_is_filled_in_order() -> None:
    ordered = [unit("a", 4), unit("b", 5), unit("c", 2), unit("d", 1)]
    found = select_by_parameter_share(ordered, share=0.5, joint=lambda _: 1.0)
    assert [each.name for each in found.robust] == ["a", "c"]
    (whole,) = [select_by_parameter_share(ordered, share=1.0, joint=lambda _: 1.0)]
    assert list(whole.robust) == ordered


ZERO = Effect(feature_drift=0.0, refusal_drift=0.0, task_gain=0.0)
MAP = {
    "dear": replace(ZERO, refusal_drift=4.0, feature_drift=-1.0, task_gain=1.0),
    "free_little": replace(ZERO, refusal_drift=-1.0, feature_drift=0.2, task_gain=0.1),
    "useless": replace(ZERO, refusal_drift=0.1, feature_drift=0.3),
    "worth_it": replace(ZERO, refusal_drift=2.0, feature_drift=0.1, task_gain=8.0),
    "free_much": replace(ZERO, feature_drift=0.4, task_gain=5.0),
    "harmful_both_ways": replace(ZERO, refusal_drift=3.0, feature_drift=0.5, task_gain=-2.0),
}


@pytest.mark.parametrize(
    ("analysis", "wanted"),
    [
        (
            AnalysisSpec(order="drift"),
            ["free_little", "free_much", "useless", "worth_it", "harmful_both_ways", "dear"],
        ),
        (
            AnalysisSpec(order="drift", proxy="feature_drift"),
            ["dear", "worth_it", "free_little", "useless", "free_much", "harmful_both_ways"],
        ),
        (
            AnalysisSpec(order="drift_per_task_gain"),
            ["free_much", "free_little", "worth_it", "dear", "useless", "harmful_both_ways"],
        ),
        (
            AnalysisSpec(order="drift_per_task_gain", proxy="feature_drift"),
            ["dear", "worth_it", "free_much", "free_little", "useless", "harmful_both_ways"],
        ),
    ],
)
def test_order(analysis: AnalysisSpec, wanted: list[str]) -> None:
    effects = [(unit(name), found) for name, found in MAP.items()]
    assert [each.name for each in order_units(effects, analysis)] == wanted
    assert [each.name for each in order_units(effects[::-1], analysis)] == wanted


def test_equal_units_keep_the_order_of_the_model() -> None:
    same = [(unit(name), ZERO) for name in ("z", "a", "m")]
    assert [each.name for each in order_units(same, AnalysisSpec())] == ["z", "a", "m"]
