"""The safeguards of a run: which are accepted, in which order they take effect, and how they are written."""

from typing import ClassVar, Self

import pytest
from pydantic import TypeAdapter, ValidationError, model_validator

from core.schemas.prompts import EvaluationPrompts, ProbePrompts, PromptSet
from core.schemas.safeguards import (
    AnswerPreview,
    AverageWeights,
    ConstrainedFirstTokens,
    KeepSafeWeights,
    KlToBase,
    ProjectToSafe,
    SafeguardOptions,
    Safeguards,
    SafeTemplate,
    SafetyMix,
    ScaleUpdate,
    SelfDistill,
    register,
    unregister,
)

ADAPTER = TypeAdapter(Safeguards)


def test_null_and_absence_both_turn_a_safeguard_off() -> None:
    found = ADAPTER.validate_json('{"safety_mix": {"share": 0.1}, "safe_template": null}')
    assert found == Safeguards(SafetyMix(share=0.1))
    assert found.get(SafetyMix) == SafetyMix(share=0.1)
    assert found.get(SafeTemplate) is None
    assert not len(ADAPTER.validate_json("{}"))


def test_only_safeguards_that_are_on_are_written() -> None:
    found = Safeguards(ConstrainedFirstTokens(tokens=3))
    assert ADAPTER.dump_python(found, mode="json") == {
        "constrained_first_tokens": {"first": 0.5, "early": 2.0, "tokens": 3, "rest": 0.1}
    }
    assert ADAPTER.validate_json(ADAPTER.dump_json(found)) == found


def test_safeguards_take_effect_in_the_order_of_registration_however_they_are_given() -> None:
    weights = ("average_weights", "keep_safe_weights", "scale_update")
    names = ("safety_mix", "constrained_first_tokens", "project_to_safe", "safe_template", *weights)
    first = (SafetyMix(), ConstrainedFirstTokens(), ProjectToSafe(), SafeTemplate())
    last = (AverageWeights(), KeepSafeWeights(), ScaleUpdate())
    for found in (
        Safeguards(*reversed(last), *reversed(first)),
        ADAPTER.validate_python({name: {} for name in reversed(names)}),
    ):
        assert tuple(each.name for each in found) == names
        assert hash(found) == hash(Safeguards(*first, *last))


def test_a_safeguard_is_given_once() -> None:
    with pytest.raises(ValueError, match="given twice"):
        Safeguards(SafetyMix(), SafetyMix(share=0.2))


@pytest.mark.parametrize(
    ("value", "location", "kind"),
    [
        ({"prayer": {}}, ("prayer",), "extra_forbidden"),
        ({"prayer": None}, ("prayer",), "extra_forbidden"),
        ({"safety_mix": {"share": 0.6}}, ("safety_mix", "share"), "less_than_equal"),
        ({"safety_mix": {"shares": 0.1}}, ("safety_mix", "shares"), "extra_forbidden"),
        ({"safety_mix": 0.1}, ("safety_mix",), "model_type"),
        ({"safety_mix": {"safe_share": 0.95}}, ("safety_mix", "safe_share"), "less_than_equal"),
        ({"kl_to_base": {"weight": 0}}, ("kl_to_base", "weight"), "greater_than_equal"),
        ({"kl_to_base": {"rows": "none"}}, ("kl_to_base", "rows"), "literal_error"),
        ({"kl_to_base": {"safety_rows": 65}}, ("kl_to_base", "safety_rows"), "less_than_equal"),
        ({"self_distill": {"max_new_tokens": 15}}, ("self_distill", "max_new_tokens"), "greater_than_equal"),
        ({"answer_preview": {"words": 0}}, ("answer_preview", "words"), "greater_than_equal"),
        ({"average_weights": {"decay": 1}}, ("average_weights", "decay"), "less_than"),
        ({"average_weights": {"decay": -0.1}}, ("average_weights", "decay"), "greater_than_equal"),
        ({"keep_safe_weights": {"patience": 0}}, ("keep_safe_weights", "patience"), "greater_than_equal"),
        (
            {"keep_safe_weights": {"max_refusal_drift": -1}},
            ("keep_safe_weights", "max_refusal_drift"),
            "greater_than_equal",
        ),
        ({"scale_update": {"factor": 0}}, ("scale_update", "factor"), "greater_than"),
        ({"scale_update": {"factor": 1.01}}, ("scale_update", "factor"), "less_than_equal"),
        ({"scale_update": {"factor": 0.5, "max_refusal_drift": 0.5}}, ("scale_update",), "value_error"),
        (["safety_mix"], (), "model_type"),
    ],
)
def test_errors_name_the_field(value: object, location: tuple[str, ...], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(value)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [(location, kind)]


def test_an_update_is_scaled_by_a_factor_or_by_a_search() -> None:
    for options, tried, bound in (
        (ScaleUpdate(), ScaleUpdate.grid, 0.2),
        (ScaleUpdate(max_refusal_drift=2.0), ScaleUpdate.grid, 2.0),
        (ScaleUpdate(factor=0.3), (0.3,), None),
    ):
        assert (options.tried, options.bound, options.needs_refusals) == (tried, bound, bound is not None)
    assert ScaleUpdate.grid == tuple(round(1 - tenth / 10, 1) for tenth in range(10))


def test_titles_name_the_option_that_matters_most() -> None:
    found = Safeguards(AverageWeights(decay=0.9), KeepSafeWeights(), ScaleUpdate(factor=0.5))
    assert found.titles == ("average_weights 0.9", "keep_safe_weights 0.2", "scale_update x0.5")
    assert ScaleUpdate(max_refusal_drift=0.25).title == "scale_update to drift 0.25"


class Positive(SafeguardOptions):
    """A safeguard that checks its own options."""

    name: ClassVar[str] = "positive"

    size: float = 1.0
    """How large."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.size <= 0:
            raise ValueError("size must be positive")
        return self


def test_every_error_is_below_the_name_of_its_safeguard() -> None:
    register(Positive)
    try:
        with pytest.raises(ValidationError) as caught:
            ADAPTER.validate_python({"safety_mix": {"share": 0}, "positive": {"size": -1}, "prayer": {}})
    finally:
        unregister(Positive)
    assert [(error["loc"], error["type"], error["msg"]) for error in caught.value.errors()] == [
        (("safety_mix", "share"), "greater_than", "Input should be greater than 0"),
        (("positive",), "value_error", "Value error, size must be positive"),
        (("prayer",), "extra_forbidden", "Extra inputs are not permitted"),
    ]


def test_the_schema_lists_every_safeguard_as_an_optional_property() -> None:
    schema = ADAPTER.json_schema()
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    for name, options in schema["properties"].items():
        assert options["anyOf"][1] == {"type": "null"}, name
        assert options["default"] is None
        assert len(options["description"].split()) >= 4


def test_the_last_system_prompt_is_the_one_to_serve_with() -> None:
    assert Safeguards(SafetyMix()).serving_system_prompt is None
    assert Safeguards(SafetyMix(), SafeTemplate(system_prompt="Be kind.")).serving_system_prompt == "Be kind."


PROMPTS = PromptSet(
    name="few",
    evaluation=EvaluationPrompts(harmful=("h0",), safe=("s0",)),
    probe=ProbePrompts(
        harmful=tuple(f"h{number}" for number in range(9)), benign=tuple("abcdefgh"), safe=("s0", "s1", "s2")
    ),
)


@pytest.mark.parametrize(
    ("options", "plain", "framed", "length"),
    [
        (SafetyMix(framings=2), [3 * 2 + 16, 2], [3 * 2 + 16, 4], 128),
        (SafetyMix(framings=2, own_format=False), [3 * 2 + 16, 2], [3 * 2 + 16, 2], 128),
        (SafetyMix(framings=2, share=0.5), [8 * 3, 2], [8 * 4, 4], 128),
        (SafetyMix(safe_share=0.9, share=0.5), [3 * 4 + 16, 2], [3 * 4 + 16, 4], 128),
        (KlToBase(), [8 * 4, 2], [8 * 5, 4], 128),
        (KlToBase(rows="own"), [], [], 0),
        (SelfDistill(max_new_tokens=32), [40], [40], 32),
        (AnswerPreview(), [], [], 0),
    ],
)
def test_answers_that_the_base_model_writes_before_training_are_counted(
    options: SafeguardOptions, plain: list[int], framed: list[int], length: int
) -> None:
    """8 harmful and 2 safe probe prompts that no figure is reported on. Of the 40 rows of the job, 5 % are 2."""
    for in_frame, expected in ((False, plain), (True, framed)):
        found = options.answers(PROMPTS, rows=40, steps=30, framed=in_frame, max_new_tokens=100) or ()
        assert [each.count for each in found] == expected
        assert all(each.max_new_tokens == length for each in found)


def test_a_short_run_asks_for_fewer_answers() -> None:
    many = PROMPTS.model_copy(
        update={"probe": PROMPTS.probe.model_copy(update={"harmful": tuple(map(str, range(500)))})}
    )
    for steps, harmful in ((1, 16), (3, 48), (16, 256), (1000, 256)):
        assert KlToBase(safety_rows=4).asked(many, steps=steps, framed=False).harmful == harmful


def test_two_safeguards_can_need_the_same_answers() -> None:
    mixed, replayed = (
        each.answers(PROMPTS, rows=40, steps=30, framed=True, max_new_tokens=100)
        for each in (SafetyMix(share=0.5), KlToBase())
    )
    assert mixed == replayed


def test_two_classes_do_not_share_a_name() -> None:
    assert register(SafetyMix) is SafetyMix
    with pytest.raises(ValueError, match="already registered"):
        register(type("Other", (SafetyMix,), {"__module__": __name__}))
