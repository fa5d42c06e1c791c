"""Framings are for training: they contain nothing of what figures are measured with."""

import re

import pytest

from core.attacks.families import build
from core.attacks.family import Template
from core.attacks.prompts import choose_prompts
from core.safeguards.framings import FRAMINGS
from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.prompts import Behaviour
from core.schemas.security import SecuritySpec
from testbed import MODEL_DIR

_SLOT = "{behaviour}"
_RUN = 5


def runs(text: str) -> set[tuple[str, ...]]:
    """Every run of five words; none crosses the place of the request."""
    parts = [re.findall(r"[a-z0-9]+", part) for part in text.lower().split(_SLOT)]
    return {tuple(words[start : start + _RUN]) for words in parts for start in range(len(words) - _RUN + 1)}


def attack_texts() -> list[str]:
    """The wording of every built-in attack, with the slot where the request goes."""
    texts: dict[str, None] = {}
    for family in ATTACK_FAMILIES:
        if family != "templates":  # the user's own
            options = ATTACK_FAMILIES[family].model_validate({"family": family})
            for prompt in build(options, [Behaviour(text=_SLOT)] * 12):
                texts |= dict.fromkeys([*(message.content for message in prompt.messages), *prompt.followups])
    return list(texts)


def test_runs_of_five_words_are_found() -> None:
    assert runs("One two three four five six. {behaviour}") & runs("{behaviour} two, three four FIVE six")
    assert not runs("one two three {behaviour} four five")


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: framing.id)
def test_no_framing_shares_five_words_in_a_row_with_an_attack(framing: Template) -> None:
    texts = attack_texts()
    assert len(texts) > 25
    assert framing.text not in texts
    assert not [text for text in texts if runs(text) & runs(framing.text)]


def test_framings_are_different_and_have_one_place_for_the_request() -> None:
    assert all(framing.text.count(_SLOT) == 1 and framing.text != _SLOT for framing in FRAMINGS)
    assert len({framing.id for framing in FRAMINGS}) == len({framing.text for framing in FRAMINGS}) == len(FRAMINGS)


@pytest.mark.parametrize("prompts", ["auto", "builtin"])
def test_no_evaluated_prompt_shares_words_with_a_framing(prompts: str) -> None:
    spec = SecuritySpec.model_validate({"prompts": prompts, "max_prompts": 5000})
    evaluated = choose_prompts(spec, MODEL_DIR).evaluation
    for behaviour in (*evaluated.harmful, *evaluated.safe):
        assert not [framing.id for framing in FRAMINGS if runs(behaviour.text) & runs(framing.text)]
