"""The attack families, each in a file of its own, and the prompts that they build.

A new family is a class of options in core.schemas.attacks, a file here, and its entry below; code outside of the
package calls `register`. The templates are in the project's own words and short, so that a model with a small context
can be attacked too; figures are comparable only between runs with the same templates. Not here: attacks that search or
learn a wording (optimised suffixes, attacker models), other languages, images; attacks on the training data.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.attacks.families import (
    best_of_n,
    direct,
    distractor,
    encoding,
    multi_turn,
    prefill,
    prompt_injection,
    refusal_breaking,
    role_play,
    templates,
)
from core.attacks.family import AttackPrompt, Family, Sampling
from core.schemas.attacks import ATTACK_FAMILIES, AttackOptions
from core.schemas.data import Message
from core.schemas.prompts import Behaviour

_FAMILIES: dict[type[AttackOptions], Family[Any]] = {}


def register(family: Family[Any]) -> None:
    """Accept an attack family in requests, policies and evaluations.

    Raises:
        ValueError: another family has this name already.
    """
    ATTACK_FAMILIES.register(family.options)
    _FAMILIES[family.options] = family


def unregister(family: Family[Any]) -> None:
    """Stop accepting an attack family. For tests, which must leave the process as they found it."""
    ATTACK_FAMILIES.unregister(family.options)
    del _FAMILIES[family.options]


def build(
    attack: AttackOptions, behaviours: Sequence[Behaviour], system_prompt: str | None = None
) -> tuple[AttackPrompt, ...]:
    """Build one attack prompt for each behaviour, in order, with `system_prompt` as the first turn if it is given.

    The result is deterministic: the same arguments give the same prompts.
    """
    system = () if system_prompt is None else (Message(role="system", content=system_prompt),)
    write = _FAMILIES[type(attack)].write
    prompts = (write(attack, behaviour, index) for index, behaviour in enumerate(behaviours))
    return tuple(replace(prompt, messages=(*system, *prompt.messages)) for prompt in prompts)


def sampling_of(attack: AttackOptions) -> Sampling:
    """How the answers to this attack are sampled."""
    return _FAMILIES[type(attack)].sampling(attack)


for _module in (
    direct,
    prompt_injection,
    refusal_breaking,
    distractor,
    role_play,
    encoding,
    multi_turn,
    prefill,
    best_of_n,
    templates,
):
    register(_module.FAMILY)
