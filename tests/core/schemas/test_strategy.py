"""Strategies are a closed union, all safeguards are off by default, and a run's title names its parts."""

import pytest
from pydantic import TypeAdapter, ValidationError

from core.schemas.analysis import AnalysisSpec
from core.schemas.safeguards import ConstrainedFirstTokens, ProjectToSafe, Safeguards, SafeTemplate, SafetyMix
from core.schemas.strategy import (
    FreezeLayersStrategy,
    LayerNumbers,
    MlLrContinuousStrategy,
    MlLrStrategy,
    ModulesStrategy,
    Strategy,
    SwatStrategy,
    UniformStrategy,
    analysis_of,
    title,
)

STRATEGY: TypeAdapter[Strategy] = TypeAdapter(Strategy)
EVERYTHING = Safeguards(
    SafetyMix(),
    ConstrainedFirstTokens(),
    ProjectToSafe(),
    SafeTemplate(),
)
EACH: list[Strategy] = [
    UniformStrategy(),
    MlLrStrategy(),
    MlLrContinuousStrategy(),
    SwatStrategy(),
    FreezeLayersStrategy(layers=LayerNumbers(first=1, last=2)),
    FreezeLayersStrategy(),
    ModulesStrategy(label="mine", full_rate=("model.layers.0.mlp.gate_up_proj[up]",), safeguards=EVERYTHING),
]


@pytest.mark.parametrize("strategy", EACH, ids=lambda strategy: strategy.kind)
def test_a_strategy_survives_a_round_trip_through_json(strategy: Strategy) -> None:
    assert STRATEGY.validate_json(STRATEGY.dump_json(strategy)) == strategy
    assert hash(strategy) == hash(STRATEGY.validate_json(STRATEGY.dump_json(strategy)))


@pytest.mark.parametrize("kind", ["uniform", "ml_lr", "ml_lr_continuous", "swat", "freeze_layers"])
def test_a_kind_alone_is_a_strategy_without_safeguards(kind: str) -> None:
    strategy = STRATEGY.validate_python({"kind": kind})
    assert (strategy.label, title(strategy)) == (kind, kind)
    assert strategy.safeguards == Safeguards()
    assert strategy.safeguards.titles == ()


def test_only_strategies_that_need_a_map_have_an_analysis() -> None:
    own = AnalysisSpec(probes=9)
    wanted = [MlLrStrategy(analysis=own), MlLrContinuousStrategy(analysis=own), SwatStrategy(analysis=own)]
    assert [analysis_of(strategy) for strategy in wanted] == [own] * 3
    assert [analysis_of(strategy) for strategy in (UniformStrategy(), FreezeLayersStrategy(), EACH[-1])] == [None] * 3


def test_a_title_names_kind_safeguards_and_a_different_label() -> None:
    guards = Safeguards(SafetyMix(share=0.05), ConstrainedFirstTokens())
    assert title(MlLrStrategy(safeguards=guards)) == "ml_lr + safety_mix 5 % + first_tokens"
    assert title(MlLrStrategy(label="ours", safeguards=guards)) == "ours: ml_lr + safety_mix 5 % + first_tokens"
    assert title(EACH[-1]) == "mine: modules + safety_mix 5 % + first_tokens + project_to_safe + safe_template"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "modules", "full_rate": ["a"]},
        {"kind": "modules", "label": "mine"},
        {"kind": "modules", "label": "mine", "full_rate": ["a\0b"]},
        {"kind": "ml_lr_continuous", "ratio": 0},
        {"kind": "swat", "warmup_ratio": 0},
        {"kind": "swat", "warmup_ratio": 1.1},
        {"kind": "freeze_layers", "layers": {"kind": "numbers", "first": 3, "last": 2}},
        {"kind": "freeze_layers", "layers": {"kind": "numbers", "first": -1, "last": 2}},
        {"kind": "freeze_layers", "layers": {"kind": "shares", "first": 0.5, "last": 0.5}},
        {"kind": "freeze_layers", "layers": {"kind": "shares", "first": 0.5, "last": 1.5}},
        {"kind": "freeze_layers", "layers": {"first": 0.1, "last": 0.5}},
        {"kind": "uniform", "analysis": {}},
        {"kind": "uniform", "safeguards": {"prayer": {}}},
        {"kind": "uniform", "safeguards": {"safety_mix": {"share": 0}}},
        {"kind": "uniform", "safeguards": {"safety_mix": {"share": 0.6}}},
        {"kind": "uniform", "safeguards": {"constrained_first_tokens": {"first": 0}}},
        {"kind": "uniform", "safeguards": {"constrained_first_tokens": {"tokens": 0}}},
        {"kind": "uniform", "safeguards": {"project_to_safe": {"threshold": 1.1}}},
        {"kind": "uniform", "safeguards": {"project_to_safe": {"subspace": "all"}}},
        {"kind": "uniform", "safeguards": {"safe_template": {"system_prompt": ""}}},
        {"kind": "uniform", "safeguards": {"safe_template": {"system_prompt": "a\0b"}}},
    ],
)
def test_invalid_fields_are_rejected(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        STRATEGY.validate_python(fields)


def test_the_defaults_of_the_constrained_loss_are_those_of_the_paper() -> None:
    spec = ConstrainedFirstTokens()
    assert (spec.first, spec.early, spec.tokens, spec.rest) == (0.5, 2.0, 5, 0.1)


def test_a_system_prompt_may_have_several_lines() -> None:
    assert SafeTemplate(system_prompt="Be kind.\nDecline harm.\n").system_prompt.count("\n") == 2
