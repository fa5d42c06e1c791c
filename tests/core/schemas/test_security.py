"""The security and quality parts of an order: suites, families, judges, prompt sets, and invalid fields."""

import pytest
from pydantic import ValidationError

from core.schemas.attacks import ATTACK_FAMILIES, SLOTS, BestOfN, Direct, Prefill
from core.schemas.prompts import Behaviour, ChosenPrompts, HubFileSource, PromptSet
from core.schemas.quality import BenchmarkEntry, ExactMatch, QualitySpec
from core.schemas.security import SUITES, SecuritySpec


def test_a_suite_fills_in_omitted_fields_only() -> None:
    assert SecuritySpec() == SecuritySpec(suite="standard")
    for name, suite in SUITES.items():
        spec = SecuritySpec.model_validate({"suite": name})
        assert (spec.attacks, spec.max_prompts, spec.max_new_tokens) == (
            suite.attacks,
            suite.max_prompts,
            suite.max_new_tokens,
        )
    own = SecuritySpec.model_validate({"suite": "full", "attacks": ["direct"], "max_prompts": 9})
    assert (own.attacks, own.max_prompts) == ((Direct(),), 9)
    assert own.max_new_tokens == SUITES["full"].max_new_tokens


def test_suites_grow_and_the_full_one_has_every_built_in_family() -> None:
    quick, standard, full = ({attack.family for attack in SUITES[name].attacks} for name in SUITES)
    assert quick < standard < full
    assert full == set(ATTACK_FAMILIES) - {"templates"}
    assert SUITES["standard"].max_prompts >= 73  # with 73 refusals, 5 % is told from nothing


def test_a_stored_order_keeps_its_meaning_if_suites_change() -> None:
    stored = SecuritySpec(suite="quick").model_dump(mode="json")
    assert {"attacks", "max_prompts", "max_new_tokens"} <= stored.keys()
    assert SecuritySpec.model_validate(stored) == SecuritySpec(suite="quick")


def test_a_family_is_given_by_its_name_or_with_options() -> None:
    spec = SecuritySpec.model_validate({"attacks": ["prefill", {"family": "best_of_n", "samples": 3}, "direct"]})
    assert spec.attacks == (Prefill(), BestOfN(samples=3), Direct())


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"suite": "huge"}, "suite", "'quick', 'standard' or 'full'"),
        ({"suite": ["quick"]}, "suite", "'quick', 'standard' or 'full'"),
        ({"suite": {}}, "suite", "'quick', 'standard' or 'full'"),
        ({"attacks": []}, "attacks", "at least 1 item"),
        ({"attacks": ["flattery"]}, "attacks.0", "does not match any of the expected tags"),
        ({"attacks": ["direct", "direct"]}, "", "named twice"),
        ({"attacks": [{"family": "prefill", "tokens": 0}]}, "attacks.0.tokens", "greater than or equal to 1"),
        ({"attacks": [{"family": "direct", "samples": 2}]}, "attacks.0.samples", "not permitted"),
        ({"attacks": [{"family": "templates", "templates": []}]}, "attacks.0.templates", "at least 1 item"),
        ({"judges": []}, "judges", "at least 1 item"),
        ({"judges": [{"kind": "rules"}, {"kind": "rules"}]}, "", "named twice"),
        ({"judges": [{"kind": "os.system"}]}, "judges.0", "does not match any of the expected tags"),
        ({"judges": [{"kind": "rubric", "model": "http://127.0.0.1"}]}, "judges.0.model", "match pattern"),
        ({"judges": [{"kind": "rubric"}]}, "judges.0.model", "required"),
        ({"judge": "rules"}, "judge", "not permitted"),
        ({"engine": "exllama"}, "engine", "'transformers' or 'vllm'"),
        ({"threshold": 0}, "threshold", "greater than 0"),
        ({"prompts": "../secrets"}, "prompts", ""),
    ],
)
def test_invalid_fields_are_rejected(fields: dict[str, object], place: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SecuritySpec.model_validate(fields)
    error = caught.value.errors()[0]
    assert ".".join(map(str, error["loc"])).startswith(place)
    assert says in error["msg"]


@pytest.mark.parametrize(
    ("templates", "says"),
    [
        ([{"id": "a", "text": "hello"}], "no place for the behaviour"),
        ([{"id": "a", "text": "{behaviour}"}, {"id": "a", "text": "x {behaviour}"}], "same id"),
        ([{"id": "a b", "text": "{behaviour}"}], "match pattern"),
        ([{"id": "a", "text": "{behaviour}\0"}], "match pattern"),
        ([{"id": "a", "text": "{behaviour}" + "x" * 16_000}], "at most 16000"),
    ],
)
def test_user_templates_need_an_id_and_a_slot(templates: list[dict[str, str]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SecuritySpec.model_validate({"attacks": [{"family": "templates", "templates": templates}]})
    for slot in SLOTS:
        fine = {"attacks": [{"family": "templates", "templates": [{"id": "a", "text": f"Do {slot}"}]}]}
        assert SecuritySpec.model_validate(fine).attacks[0].family == "templates"


def test_a_bare_text_is_a_behaviour_without_category() -> None:
    probe = {name: [f"{name} {number}" for number in range(8)] for name in ("harmful", "benign")}
    evaluation = {"harmful": ["a", {"text": "b", "category": "c", "context": "d"}], "safe": ["e"]}
    found = PromptSet.model_validate({"name": "x", "evaluation": evaluation, "probe": probe})
    assert found.evaluation.harmful == (Behaviour(text="a"), Behaviour(text="b", category="c", context="d"))
    assert [each.full_text for each in found.evaluation.harmful] == ["a", "d\n\nb"]


def test_prompt_sets_are_names_and_not_paths() -> None:
    assert SecuritySpec(prompts=ChosenPrompts(harmful="advbench", safe="ps_" + "0" * 24)).prompts != "auto"
    for name in ("../x", "a/b", "", "x" * 200, "http://x"):
        with pytest.raises(ValidationError):
            ChosenPrompts(harmful=name)
    with pytest.raises(ValidationError):
        HubFileSource(id="a/b", revision="0" * 40, file="../x.csv")
    assert HubFileSource(id="a/b", revision="0" * 40, file="data/x-y.v1.csv").file == "data/x-y.v1.csv"


def test_tasks_are_unique_and_benchmark_names_are_not_taken() -> None:
    with pytest.raises(ValidationError, match="named twice"):
        QualitySpec(tasks=(ExactMatch(), ExactMatch()))
    for name in ("task", "over_refusal", "direct"):
        with pytest.raises(ValidationError, match="choose another name"):
            BenchmarkEntry.model_validate({"name": name, "source": {"kind": "file", "path": "x.jsonl"}})
