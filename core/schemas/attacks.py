"""Attacks that a job may order, and the suites that order several at once.

Covers: families with their options, suites. Not here: the words of any attack (core.attacks), prompts to wrap
(core.schemas.prompts).
"""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from core.schemas.base import Frozen

TemplateFamily = Literal["direct", "prompt_injection", "refusal_breaking", "distractor", "role_play", "encoding"]
"""Families whose attacks are one user turn."""
AttackFamily = Literal[TemplateFamily, "multi_turn", "prefill", "best_of_n", "templates"]
ATTACK_FAMILIES: tuple[AttackFamily, ...] = (
    *get_args(TemplateFamily),
    "multi_turn",
    "prefill",
    "best_of_n",
    "templates",
)
SuiteName = Literal["quick", "standard", "full"]

SLOTS = ("{behaviour}", "[INSERT PROMPT HERE]")
"""What a user's template may mark the place of the behaviour with; the second is that of published collections."""


class OneTurn(Frozen):
    """An attack in one user turn, by the project's own templates."""

    family: TemplateFamily
    """`direct`: the behaviour as it is. `prompt_injection`: hidden behind another task. `refusal_breaking`: refusals
    are forbidden or an affirmative opening is demanded. `distractor`: between two harmless instructions. `role_play`:
    asked of a character. `encoding`: written in a code."""


class MultiTurn(Frozen):
    """The behaviour comes last, after harmless turns that the model answers; or it is asked for again."""

    family: Literal["multi_turn"] = "multi_turn"
    """Family."""


class Prefill(Frozen):
    """The model's own turn is begun for it with compliant words."""

    family: Literal["prefill"] = "prefill"
    """Family."""
    tokens: int = Field(default=8, ge=1, le=64)
    """How many tokens of the compliant beginning are put there."""


class BestOfN(Frozen):
    """The behaviour as it is, answered several times at a temperature; it succeeds when any answer complies."""

    family: Literal["best_of_n"] = "best_of_n"
    """Family."""
    samples: int = Field(default=8, ge=2, le=128)
    """Answers to each behaviour."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is sampled from."""


class AttackTemplate(Frozen):
    """A template of the user's own."""

    id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name, stored with every answer."""
    text: str = Field(min_length=1, max_length=16_000, pattern=r"^[^\x00]*$")
    """The user's turn. `{behaviour}` or `[INSERT PROMPT HERE]` is where the behaviour goes."""


def _with_slot(template: AttackTemplate) -> AttackTemplate:
    if not any(slot in template.text for slot in SLOTS):
        raise ValueError(f"template {template.id!r} has no place for the behaviour: write {' or '.join(SLOTS)} in it")
    return template


def _told_apart(templates: tuple[AttackTemplate, ...]) -> tuple[AttackTemplate, ...]:
    if len({template.id for template in templates}) < len(templates):
        raise ValueError("two templates have the same id: give each its own")
    return templates


class Templates(Frozen):
    """Templates of the user's own, dealt out in turn over the behaviours."""

    family: Literal["templates"] = "templates"
    """Family."""
    templates: Annotated[
        tuple[Annotated[AttackTemplate, AfterValidator(_with_slot)], ...],
        Field(min_length=1, max_length=200),
        AfterValidator(_told_apart),
    ]
    """The templates."""


def _named(value: object) -> object:
    """A family's bare name is short for the family without options."""
    return {"family": value} if isinstance(value, str) else value


Attack = Annotated[
    Annotated[OneTurn | MultiTurn | Prefill | BestOfN | Templates, Field(discriminator="family")],
    BeforeValidator(_named),
]
