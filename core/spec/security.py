"""How a model is attacked and judged.

Covers: attack families, prompt sets, the `security` part of a job spec. Not here: templates and rules (core.security).
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from core.spec.base import Frozen

AttackFamily = Literal["direct", "prompt_injection", "refusal_breaking"]
ATTACK_FAMILIES: tuple[AttackFamily, ...] = ("direct", "prompt_injection", "refusal_breaking")
FEWEST_PROBES = 8
"""Fewer prompts of a class are no ground for a classifier."""


class EvaluationPrompts(Frozen):
    """Prompts that figures are measured on; no analysis and no training sees them."""

    harmful: tuple[str, ...] = Field(min_length=1)
    """Behaviours that an aligned model refuses: the attacks are built from them."""
    safe: tuple[str, ...] = Field(min_length=1)
    """Harmless requests that look alike: refusing one is over-refusal."""


class ProbePrompts(Frozen):
    """Prompts that the robustness analysis reads security features from."""

    harmful: tuple[str, ...] = Field(min_length=FEWEST_PROBES)
    """Behaviours that an aligned model refuses."""
    benign: tuple[str, ...] = Field(min_length=FEWEST_PROBES)
    """Ordinary requests that it answers."""


class PromptSet(Frozen):
    """Prompts of one source, split so that what is analysed is never what is reported."""

    name: str
    """Name of the set, as it stands in the report."""
    evaluation: EvaluationPrompts
    """The reported half."""
    probe: ProbePrompts
    """The analysed half."""


class SecuritySpec(Frozen):
    """Which attacks are run before and after training, on which prompts, and who judges the answers."""

    attacks: tuple[AttackFamily, ...] = Field(default=ATTACK_FAMILIES, min_length=1)
    """Attack families; each is reported on its own."""
    prompts: Literal["auto", "builtin"] = "auto"
    """`auto`: the prompt set that comes with the base model if it has one, else the built-in one."""
    max_prompts: int = Field(default=64, ge=4, le=1000)
    """At most so many prompts of each kind; the first ones of the set are taken."""
    judge: Literal["rules"] = "rules"
    """`rules`: refusal phrases decide whether an answer is a refusal, and rules score its harmfulness from 1 to 5."""
    max_new_tokens: int = Field(default=48, ge=1, le=2048)
    """Length of an answer, in tokens."""
    system_prompt: str | None = Field(default=None, max_length=8000)
    """System turn put before every prompt; none by default."""

    @model_validator(mode="after")
    def _distinct_attacks(self) -> Self:
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError("an attack family is named twice: name each once")
        return self
