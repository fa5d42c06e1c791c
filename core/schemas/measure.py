"""What a policy requires to be measured, and what was measured of one model.

Covers: the pinned measurement of a policy, the record of a measurement, whether one record covers another. Not here:
rules on the figures (core.schemas.policy), comparing a record with a policy (core.gate.pinned).
"""

from typing import Annotated

from pydantic import Field, field_validator

from core.schemas.attacks import Attack
from core.schemas.base import Frozen
from core.schemas.security import SUITES

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_STANDARD = SUITES["standard"]


class PinnedPrompts(Frozen):
    """The prompt sets that a job must be measured with, by their digests."""

    harmful: Sha256 | None = None
    """SHA-256 of the set of harmful prompts, as a decision's `measured` reports it; null for the set of `auto`."""
    safe: Sha256 | None = None
    """SHA-256 of the set of safe look-alikes, likewise; null for the set of `auto`."""


class Measure(Frozen):
    """What a job must measure for its model to be released. A job may measure more. A job that measures less is
    `undecided`, unless a rule fails. The default is the suite `standard` with the prompts of `auto`."""

    attacks: tuple[Attack, ...] = Field(default=_STANDARD.attacks, min_length=1, max_length=20)
    """From 1 to 20 attack families, as objects with options or as names. A job must run each with the same options;
    best of N may have more samples."""
    prompts: PinnedPrompts = PinnedPrompts()
    """The prompt sets. A job cannot replace them."""
    min_prompts: int = Field(default=_STANDARD.max_prompts, ge=1, le=5000)
    """Fewest prompts per family, and fewest safe look-alikes, 1 to 5000. A smaller set must be measured whole."""
    min_new_tokens: int = Field(default=_STANDARD.max_new_tokens, ge=1, le=4096)
    """Smallest `security.max_new_tokens`, 1 to 4096."""
    system_prompt: str | None = Field(default=None, max_length=8000)
    """The system prompt that models are served with, at most 8000 characters; null for none. A job must be measured
    with exactly this one."""
    serving_prompts: bool = False
    """Whether a run may instead be measured with the system prompt that one of its safeguards requires
    (`safe_template`). Nothing forces whoever has the adapter to serve it with that prompt."""

    @field_validator("attacks")
    @classmethod
    def _families_are_distinct(cls, attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
        if len({attack.family for attack in attacks}) < len(attacks):
            raise ValueError("an attack family is named twice: name each once")
        return attacks

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the pinned attack families."""
        return tuple(attack.family for attack in self.attacks)


class PromptsUsed(Frozen):
    """One set of prompts as a job used it."""

    sha256: Sha256
    """SHA-256 over the whole set: text, category and context of every prompt, in order."""
    size: int
    """Number of prompts in the whole set, before `max_prompts` shortens it."""
    automatic: bool
    """Whether it is the set of `auto`: the base model's own set, or the built-in one."""
    trained_on: int = 0
    """Number of measured prompts that also occur in the training rows."""


class MeasuredAttack(Frozen):
    """One attack family as it was run."""

    attack: Attack
    """The family with its options."""
    prompts: int
    """Number of prompts with an answer, decided or not."""


class Measured(Frozen):
    """How one model was measured, as recorded where its answers were collected."""

    run: str
    """The measured model: `base`, or the label of a run."""
    attacks: tuple[MeasuredAttack, ...]
    """The attack families that were run."""
    safe_prompts: int
    """Number of safe look-alikes with an answer."""
    harmful: PromptsUsed
    """The set of harmful prompts."""
    safe: PromptsUsed
    """The set of safe look-alikes."""
    max_new_tokens: int
    """Largest length of an answer in tokens."""
    system_prompt: str | None
    """System prompt before every prompt; null for none."""
    serving_prompt: bool = False
    """Whether a safeguard of the run requires this system prompt when the model is served."""
    answers: int = 0
    """Number of answers to attacks and safe look-alikes; 0 in records of versions that did not count them."""
    thinking: int = 0
    """Number of these that contain thinking, which judges do not read."""

    def find(self, family: str) -> MeasuredAttack | None:
        """How a family was run; None if it was not."""
        return next((each for each in self.attacks if each.attack.family == family), None)

    def covers(self, other: "Measured") -> bool:
        """Whether everything that `other` measured was measured here, with as many prompts and as long answers."""
        same = (self.harmful.sha256, self.safe.sha256, self.system_prompt)
        if same != (other.harmful.sha256, other.safe.sha256, other.system_prompt):
            return False
        if self.max_new_tokens < other.max_new_tokens or self.safe_prompts < other.safe_prompts:
            return False
        pairs = [(self.find(each.attack.family), each) for each in other.attacks]
        return all(
            mine is not None and mine.attack.covers(each.attack) and mine.prompts >= each.prompts
            for mine, each in pairs
        )
