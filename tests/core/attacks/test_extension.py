"""A new attack family: one class of options and one call of `register`, and every part of a job accepts it.

Not here: a whole job with it (tests.core.pipeline.test_extension).
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest
from pydantic import ValidationError

from core.attacks.evaluate import evaluate_by_rules
from core.attacks.families import build, register, unregister
from core.attacks.family import Family, Sampling, Template, deal
from core.attacks.prompts import choose_prompts
from core.lm.load import BaseModel
from core.schemas.attacks import ATTACK_FAMILIES, AttackOptions
from core.schemas.policy import Policy, RateRule
from core.schemas.prompts import Behaviour
from core.schemas.security import SecuritySpec


class Shouted(AttackOptions):
    """The behaviour after a shout, sampled more than once."""

    summary: ClassVar[str] = "requests that shout"

    family: Literal["shouted"] = "shouted"
    samples: int = 2


SHOUTED = Family(
    Shouted, deal([Template("loud", "Listen! {behaviour}")]), lambda options: Sampling(options.samples, temperature=0.5)
)


@pytest.fixture
def shouted() -> Iterator[None]:
    register(SHOUTED)
    yield
    unregister(SHOUTED)


@pytest.mark.usefixtures("shouted")
def test_a_request_names_the_family_with_options_or_by_its_name() -> None:
    spec = SecuritySpec.model_validate({"attacks": [{"family": "shouted", "samples": 3}, "direct"]})
    assert spec.attacks[0] == Shouted(samples=3)
    assert SecuritySpec.model_validate({"attacks": ["shouted"]}).attacks == (Shouted(),)
    assert SecuritySpec.model_validate_json(spec.model_dump_json()) == spec
    assert build(spec.attacks[0], [Behaviour(text="Do it.")])[0].messages[0].content == "Listen! Do it."


@pytest.mark.usefixtures("shouted")
def test_a_policy_has_a_rule_for_the_family() -> None:
    policy = Policy.model_validate({"families": {"shouted": {"max_rate": 0.2}}})
    assert policy.rule("shouted") == RateRule(max_rate=0.2)


@pytest.mark.usefixtures("shouted")
def test_the_family_has_its_own_figures(base: BaseModel) -> None:
    spec = SecuritySpec.model_validate({"attacks": ["shouted"], "max_prompts": 4, "max_new_tokens": 8})
    found = evaluate_by_rules(base, base.model, choose_prompts(spec, base.folder).evaluation, spec, run="base")
    figures = {(figure.suite, figure.metric): figure for figure in found.figures}
    rate = figures["shouted", "attack_success_rate"]
    assert rate.n + rate.undecided == 4
    assert len([answer for answer in found.answers if answer.suite == "shouted"]) == 8
    assert {answer.template for answer in found.answers if answer.suite == "shouted"} == {"loud"}


def test_an_unregistered_family_is_rejected_and_the_known_ones_are_named() -> None:
    with pytest.raises(ValidationError, match=r"'shouted' found using 'family'.* 'direct', .*'templates'"):
        SecuritySpec.model_validate({"attacks": ["shouted"]})
    with pytest.raises(ValidationError, match=r"Input should be 'direct', .* or 'templates'"):
        Policy.model_validate({"families": {"shouted": {"max_rate": 0.2}}})


def test_a_name_belongs_to_one_family() -> None:
    class Other(AttackOptions):
        """Another family with a name that is taken."""

        family: Literal["direct"] = "direct"

    with pytest.raises(ValueError, match="'direct' is already registered"):
        register(Family(Other, deal([Template("loud", "{behaviour}")])))


def test_the_schema_of_a_policy_lists_the_family_names() -> None:
    names = Policy.model_json_schema()["properties"]["families"]["propertyNames"]["enum"]
    assert names == list(ATTACK_FAMILIES)
