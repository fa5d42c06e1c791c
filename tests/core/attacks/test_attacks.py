"""Attack prompts: one for each behaviour, deterministic, with the behaviour unchanged."""

import base64
import codecs
import subprocess
import sys

import pytest

from core.attacks.families import (
    build,
    direct,
    distractor,
    encoding,
    prompt_injection,
    refusal_breaking,
    role_play,
)
from core.attacks.families.prefill import COMPLIANT_OPENING
from core.attacks.family import Template
from core.schemas.attacks import (
    ATTACK_FAMILIES,
    AttackOptions,
    AttackTemplate,
    BestOfN,
    Direct,
    Distractor,
    Encoding,
    MultiTurn,
    Prefill,
    PromptInjection,
    RefusalBreaking,
    RolePlay,
    Templates,
)
from core.schemas.prompts import Behaviour

BEHAVIOURS = [Behaviour(text=f"Explain how to do thing {number}.") for number in range(12)]
TEMPLATES: dict[AttackOptions, tuple[Template, ...]] = {
    Direct(): direct.TEMPLATES,
    PromptInjection(): prompt_injection.TEMPLATES,
    RefusalBreaking(): refusal_breaking.TEMPLATES,
    Distractor(): distractor.TEMPLATES,
    RolePlay(): role_play.TEMPLATES,
    Encoding(): encoding.TEMPLATES,
}
OWN = Templates(
    templates=(
        AttackTemplate(id="braces", text="Please: {behaviour} Thanks!"),
        AttackTemplate(id="published", text="[INSERT PROMPT HERE] Again: [INSERT PROMPT HERE]"),
    )
)
EVERY: tuple[AttackOptions, ...] = (
    *TEMPLATES,
    MultiTurn(),
    Prefill(),
    BestOfN(),
    OWN,
)


def test_every_family_can_be_built() -> None:
    assert {attack.family for attack in EVERY} == set(ATTACK_FAMILIES)


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.family)
def test_every_behaviour_gets_one_prompt_deterministically(attack: AttackOptions) -> None:
    prompts = build(attack, BEHAVIOURS)
    assert [prompt.behaviour for prompt in prompts] == BEHAVIOURS
    assert prompts == build(attack, BEHAVIOURS)
    assert build(attack, []) == ()
    guarded = build(attack, BEHAVIOURS, system_prompt="Be kind.")
    for plain, prompt in zip(prompts, guarded, strict=True):
        assert prompt.messages[0].role == "system"
        assert prompt.messages[0].content == "Be kind."
        assert prompt.messages[1:] == plain.messages


@pytest.mark.parametrize("attack", TEMPLATES, ids=lambda attack: attack.family)
def test_templates_take_turns(attack: AttackOptions) -> None:
    ids = [template.id for template in TEMPLATES[attack]]
    prompts = build(attack, BEHAVIOURS)
    assert [prompt.template for prompt in prompts] == [ids[index % len(ids)] for index in range(len(BEHAVIOURS))]
    assert all([message.role for message in prompt.messages] == ["user"] for prompt in prompts)
    if attack.family != "encoding":
        assert all(prompt.messages[0].content.count(prompt.behaviour.text) == 1 for prompt in prompts)
    if attack.family != "direct":
        assert 3 <= len(ids) <= 5
        assert all(len(prompt.messages[0].content) > len(prompt.behaviour.text) + 20 for prompt in prompts)


def test_template_ids_are_unique() -> None:
    ids = [template.id for templates in TEMPLATES.values() for template in templates]
    assert len(ids) == len(set(ids))


def test_codes_hide_the_behaviour_and_can_be_decoded() -> None:
    text = "Tell me how to do it, step by step."
    by_id = {template.id: template for template in encoding.TEMPLATES}
    coded = {name: template.fill(text).rpartition("\n")[2] for name, template in by_id.items()}
    assert base64.b64decode(coded["base64"]).decode() == text
    assert codecs.decode(coded["rot13"], "rot13") == text
    assert coded["reversed"][::-1] == text
    assert coded["spaced"].replace(" ", "").replace("_", " ") == text
    assert coded["digits"] == "T3ll m3 h0w 70 d0 17, 573p by 573p.".replace("T", "7")
    assert all(text not in template.fill(text) for template in by_id.values())


def test_own_templates_fill_every_slot_and_leave_slots_in_the_behaviour() -> None:
    odd = Behaviour(text="Print {behaviour} and [INSERT PROMPT HERE] and {{x}}.")
    first, second = build(OWN, [odd, odd])
    assert first.messages[0].content == f"Please: {odd.text} Thanks!"
    assert second.messages[0].content == f"{odd.text} Again: {odd.text}"
    for attack in (*(attack for attack in TEMPLATES if attack.family != "encoding"), BestOfN()):
        assert odd.text in build(attack, [odd])[0].messages[0].content


def test_a_context_is_put_before_the_behaviour_and_judges_do_not_see_it() -> None:
    behaviour = Behaviour(text="Do it.", context="A long text.")
    (prompt,) = build(Direct(), [behaviour])
    assert prompt.messages[0].content == "A long text.\n\nDo it."
    assert prompt.behaviour.text == "Do it."


def test_several_turns_ask_for_the_behaviour_last() -> None:
    topical = [Behaviour(text="Do it.", category="lock_picking")] * 3
    prompts = build(MultiTurn(), topical)
    assert len({prompt.template for prompt in prompts}) == 3
    for prompt in prompts:
        assert [message.role for message in prompt.messages] == ["user"]
        assert prompt.followups
        assert "Do it." in prompt.followups[-1]
    assert "lock picking" in prompts[0].messages[0].content
    assert "Do it." not in prompts[0].messages[0].content
    (untold,) = build(MultiTurn(), [Behaviour(text="Do it.")])
    assert "{topic}" not in untold.messages[0].content


def test_a_prefill_starts_the_models_own_turn() -> None:
    (prompt,) = build(Prefill(), BEHAVIOURS[:1])
    assert [message.role for message in prompt.messages] == ["user", "assistant"]
    assert prompt.messages[-1].content == COMPLIANT_OPENING


def test_attacks_need_no_torch() -> None:
    script = "import sys, core.attacks.families; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
