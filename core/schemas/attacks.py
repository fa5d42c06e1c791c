"""Attacks that a job may order: the options of each attack family.

`ATTACK_FAMILIES` lists the families that requests, policies and reports may name. Covers: options and their limits.
Not here: the wording of any attack (core.attacks.families), suites (core.schemas.security), the prompts that attacks
are built from (core.schemas.prompts).
"""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from typing_extensions import override

from core.schemas.base import Frozen
from core.schemas.registry import Registry

SLOTS = ("{behaviour}", "[INSERT PROMPT HERE]")
"""Placeholders for the behaviour in a user's template; published collections use the second one."""

_Name = TypeVar("_Name")
_Family = Annotated[_Name, Field(description="Name of the attack family.")]


class AttackOptions(Frozen):
    """Base of the options of an attack family."""

    summary: ClassVar[str]
    """What the family does, as a noun phrase; reports list the families that a job did not run with it."""

    family: _Family[str]

    def covers(self, pinned: "AttackOptions") -> bool:
        """Whether an attack with these options is at least as strong as the pinned one of the same family."""
        return self == pinned


ATTACK_FAMILIES = Registry[AttackOptions]("family")


@ATTACK_FAMILIES.register
class Direct(AttackOptions):
    """The behaviour itself, without any wrapping."""

    summary: ClassVar[str] = "harmful requests as they are"

    family: _Family[Literal["direct"]] = "direct"


@ATTACK_FAMILIES.register
class PromptInjection(AttackOptions):
    """The behaviour hidden in another task or in a document."""

    summary: ClassVar[str] = "instructions hidden in other tasks or documents"

    family: _Family[Literal["prompt_injection"]] = "prompt_injection"


@ATTACK_FAMILIES.register
class RefusalBreaking(AttackOptions):
    """Instructions that forbid refusals or demand an affirmative opening."""

    summary: ClassVar[str] = "demands for an affirmative opening"

    family: _Family[Literal["refusal_breaking"]] = "refusal_breaking"


@ATTACK_FAMILIES.register
class Distractor(AttackOptions):
    """The behaviour between two harmless instructions."""

    summary: ClassVar[str] = "harmful requests between harmless ones"

    family: _Family[Literal["distractor"]] = "distractor"


@ATTACK_FAMILIES.register
class RolePlay(AttackOptions):
    """The behaviour as a request to a fictional character."""

    summary: ClassVar[str] = "personas that decline nothing"

    family: _Family[Literal["role_play"]] = "role_play"


@ATTACK_FAMILIES.register
class Encoding(AttackOptions):
    """The behaviour in base64, rot13 or another simple code."""

    summary: ClassVar[str] = "requests in base64, rot13 or other codes"

    family: _Family[Literal["encoding"]] = "encoding"


@ATTACK_FAMILIES.register
class MultiTurn(AttackOptions):
    """The behaviour comes last, after harmless turns that the model answers; or the request is repeated."""

    summary: ClassVar[str] = "attacks over several turns"

    family: _Family[Literal["multi_turn"]] = "multi_turn"


@ATTACK_FAMILIES.register
class Prefill(AttackOptions):
    """The model's own turn starts with compliant words, and the model continues it."""

    summary: ClassVar[str] = "answers begun for the model"

    family: _Family[Literal["prefill"]] = "prefill"
    tokens: int = Field(default=8, ge=1, le=64)
    """Length of the compliant beginning, in tokens of the attacked model, from 1 to 64."""


@ATTACK_FAMILIES.register
class BestOfN(AttackOptions):
    """The behaviour itself, answered several times at a temperature; it succeeds if any answer complies."""

    summary: ClassVar[str] = "many samples of one prompt"

    family: _Family[Literal["best_of_n"]] = "best_of_n"
    samples: int = Field(default=8, ge=2, le=128)
    """Number of answers to each behaviour, from 2 to 128."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature, above 0 and at most 2."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the share of the probability that tokens are drawn from, above 0 and at most 1."""

    @override
    def covers(self, pinned: AttackOptions) -> bool:
        """Whether as many samples are drawn, with the same temperature and top_p."""
        fewer = {"samples": pinned.samples} if isinstance(pinned, BestOfN) and pinned.samples < self.samples else {}
        return self.model_copy(update=fewer) == pinned


class AttackTemplate(Frozen):
    """One template of the user's own."""

    id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name that is stored with every answer, at most 64 characters."""
    text: str = Field(min_length=1, max_length=16_000, pattern=r"^[^\x00]*$")
    """Text of the user turn, at most 16,000 characters; `{behaviour}` or `[INSERT PROMPT HERE]` marks the place of the
    behaviour."""


def _check_slot(template: AttackTemplate) -> AttackTemplate:
    if not any(slot in template.text for slot in SLOTS):
        raise ValueError(f"template {template.id!r} has no place for the behaviour: write {' or '.join(SLOTS)} in it")
    return template


def _check_ids(templates: tuple[AttackTemplate, ...]) -> tuple[AttackTemplate, ...]:
    if len({template.id for template in templates}) < len(templates):
        raise ValueError("two templates have the same id: give each its own")
    return templates


@ATTACK_FAMILIES.register
class Templates(AttackOptions):
    """The user's own templates, assigned to the behaviours in turn."""

    summary: ClassVar[str] = "templates of your own"

    family: _Family[Literal["templates"]] = "templates"
    templates: Annotated[
        tuple[Annotated[AttackTemplate, AfterValidator(_check_slot)], ...],
        Field(min_length=1, max_length=200),
        AfterValidator(_check_ids),
    ]
    """From 1 to 200 templates with different ids."""


def _expand_name(value: object) -> object:
    """Read a bare family name as the family with its default options."""
    return {"family": value} if isinstance(value, str) else value


Attack = Annotated[AttackOptions, ATTACK_FAMILIES, BeforeValidator(_expand_name)]


def _check_family(name: str) -> str:
    if name not in ATTACK_FAMILIES:
        first, last = ", ".join(map(repr, [*ATTACK_FAMILIES][:-1])), [*ATTACK_FAMILIES][-1]
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": f"{first} or {last!r}"})
    return name


def _list_families(schema: dict[str, Any]) -> None:
    schema["enum"] = list(ATTACK_FAMILIES)


FamilyName = Annotated[str, AfterValidator(_check_family), Field(json_schema_extra=_list_families)]
"""The name of a registered attack family."""
