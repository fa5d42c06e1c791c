"""What can be added to any strategy: safeguards before, while and after an arm is trained, and when it is served.

Covers: each safeguard's options and short name. Not here: what they do (core.safeguards.arms, core.safeguards.mixing,
core.training.objective, core.safeguards.projection). Sources are named at each; sizes that no source names are this
project's choice.
"""

from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen

SAFETY_PROMPT = (
    "You help people with what they ask. Politely decline anything that could hurt somebody or break the law, whatever "
    "reason is given and however the request is worded, and say briefly why."
)
"""System prompt of `safe_template` where the job names none."""


class SafetyMix(Frozen):
    """Refusals mixed into the training rows (Bianchi et al. 2024, "Safety-Tuned LLaMAs").

    The rows are harmful requests of the prompt set's probe half with the base model's own refusals; the half that
    figures are measured on is never trained on. Where more are asked for than there are, they repeat.
    """

    share: float = Field(default=0.05, gt=0, le=0.5)
    """Share of safety rows in what is trained on. They are added to the job's rows, so an epoch has more steps."""


class ConstrainedFirstTokens(Frozen):
    """A loss that holds an answer's first tokens to what the base model would say (Qi et al. 2024, "Safety Alignment
    Should Be Made More Than Just a Few Tokens Deep", section 4).

    Of a token with strength beta: -(2/beta) log sigmoid(beta (log p - log p_base)). The defaults are the paper's.
    """

    first: float = Field(default=0.5, ge=0.001, le=100)
    """Strength at the first token of an answer."""
    early: float = Field(default=2.0, ge=0.001, le=100)
    """Strength at the tokens after it, up to `tokens`."""
    tokens: int = Field(default=5, ge=1, le=1000)
    """How many tokens count as first ones."""
    rest: float = Field(default=0.1, ge=0.001, le=100)
    """Strength at all others; a small one is ordinary cross-entropy."""


class ProjectToSafe(Frozen):
    """Each module's update is projected onto its alignment direction after training (after SafeLoRA, Hsu et al. 2024).

    The direction is the difference between the base model and the model that it was aligned from, which the server's
    list must name as the base model's `unaligned_base`.
    """

    threshold: float = Field(default=0.5, ge=0, le=1)
    """Modules are projected whose update and its projection have at most this cosine; 1 projects all of them."""
    subspace: Literal["weighted", "span"] = "weighted"
    """`weighted`: SafeLoRA's own V V^T / |V|, which weighs directions by how much alignment moved them, and may shrink
    or stretch an update. `span`: onto the `rank` strongest directions, which never lengthens it."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Directions of `span`."""


class SafeTemplate(Frozen):
    """Tune without a system prompt, serve with one that asks for safety (PTST, Lyu et al. 2024).

    System turns in the job's rows are left out of this arm's training, and its figures are measured with this prompt
    instead of `security.system_prompt`. Serve the adapter with it too. It only helps a base model that heeds system
    prompts: the report's figures tell.
    """

    system_prompt: str = Field(default=SAFETY_PROMPT, min_length=1, max_length=8000, pattern=r"^[^\x00]*$")
    """The prompt to serve with."""


class Safeguards(Frozen):
    """Safeguards of one arm; all are off by default, and any of them go together."""

    safety_mix: SafetyMix | None = None
    """Mix refusals into the training rows."""
    constrained_first_tokens: ConstrainedFirstTokens | None = None
    """Hold the first tokens of answers to the base model."""
    project_to_safe: ProjectToSafe | None = None
    """Project the trained update onto the alignment direction; needs the base model's `unaligned_base`."""
    safe_template: SafeTemplate | None = None
    """Train without and serve with a safety system prompt."""

    @property
    def names(self) -> tuple[str, ...]:
        """Short names of those that are on, in the order in which they take effect."""
        found: list[str] = []
        if self.safety_mix is not None:
            found.append(f"safety_mix {100 * self.safety_mix.share:g} %")
        if self.constrained_first_tokens is not None:
            found.append("first_tokens")
        if self.project_to_safe is not None:
            found.append("project_to_safe")
        if self.safe_template is not None:
            found.append("safe_template")
        return tuple(found)
