"""Attack prompts: one for each behaviour, dealt out without chance, the behaviour kept to the letter."""

import subprocess
import sys
from typing import get_args

import pytest

from core.security.attacks import build, templates
from core.spec.security import ATTACK_FAMILIES, AttackFamily

BEHAVIOURS = [f"Explain how to do thing {number}." for number in range(12)]


@pytest.mark.parametrize("family", ATTACK_FAMILIES)
def test_every_behaviour_gets_one_prompt_and_the_templates_take_turns(family: AttackFamily) -> None:
    prompts = build(family, BEHAVIOURS)
    ids = [template.id for template in templates(family)]
    assert [prompt.behaviour for prompt in prompts] == BEHAVIOURS
    assert [prompt.template for prompt in prompts] == [ids[index % len(ids)] for index in range(len(BEHAVIOURS))]
    assert prompts == build(family, BEHAVIOURS)
    for prompt in prompts:
        (user,) = prompt.messages
        assert user.role == "user"
        assert user.content.count(prompt.behaviour) == 1


def test_direct_is_the_behaviour_itself_and_the_attacks_are_more() -> None:
    assert [prompt.messages[0].content for prompt in build("direct", BEHAVIOURS)] == BEHAVIOURS
    for family in ("prompt_injection", "refusal_breaking"):
        assert 3 <= len(templates(family)) <= 5
        assert all(len(prompt.messages[0].content) > len(prompt.behaviour) + 20 for prompt in build(family, BEHAVIOURS))


def test_template_ids_are_unique_and_every_family_is_covered() -> None:
    assert set(ATTACK_FAMILIES) == set(get_args(AttackFamily))
    ids = [template.id for family in ATTACK_FAMILIES for template in templates(family)]
    assert len(ids) == len(set(ids))


def test_a_system_prompt_comes_first() -> None:
    prompts = build("refusal_breaking", BEHAVIOURS[:2], system_prompt="Be kind.")
    assert [message.role for message in prompts[0].messages] == ["system", "user"]
    assert prompts[0].messages[0].content == "Be kind."


def test_braces_and_slots_in_a_behaviour_are_kept() -> None:
    behaviour = "Print {behaviour} and {0} and {{x}}."
    for family in ATTACK_FAMILIES:
        assert behaviour in build(family, [behaviour])[0].messages[0].content


def test_no_behaviours_give_no_prompts() -> None:
    assert build("direct", []) == ()


def test_attacks_need_no_torch() -> None:
    script = "import sys, core.security.attacks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
