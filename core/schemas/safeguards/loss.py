"""Safeguards that change the loss.

Not here: what they do (core.safeguards). Sizes without a source are this project's choice.
"""

from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from core.schemas.prompts import PromptSet
from core.schemas.safeguards.interface import PlannedAnswers, SafeguardOptions
from core.schemas.safeguards.rows import OnTooFew, SafetyMix, SafetyRequests


class ConstrainedFirstTokens(SafeguardOptions):
    """Trains with a loss that keeps the first tokens of each answer close to the base model (Qi et al. 2024, "Safety
    Alignment Should Be Made More Than Just a Few Tokens Deep", section 4).

    The loss of a token with strength beta is -(2/beta) log sigmoid(beta (log p - log p_base)). The defaults are those
    of the paper.
    """

    name: ClassVar[str] = "constrained_first_tokens"

    first: float = Field(default=0.5, ge=0.001, le=100)
    """Strength beta at the first token of an answer, 0.001 to 100."""
    early: float = Field(default=2.0, ge=0.001, le=100)
    """Strength beta at the tokens from the second up to number `tokens`, 0.001 to 100."""
    tokens: int = Field(default=5, ge=1, le=1000)
    """How many tokens at the start of an answer are constrained, 1 to 1000."""
    rest: float = Field(default=0.1, ge=0.001, le=100)
    """Strength beta at all later tokens, 0.001 to 100; a small value is close to cross-entropy."""

    @property
    @override
    def title(self) -> str:
        return "first_tokens"

    @property
    @override
    def needs_adapter(self) -> bool:
        return True


class KlToBase(SafeguardOptions):
    """Adds the KL divergence from the base model's predictions to the loss (Kaczér et al. 2025, arXiv 2508.06249; logit
    replay, arXiv 2512.10150).

    The loss becomes loss + weight * KL(base || tuned), the mean over the positions of answers, in nats per token. With
    `rows` `both`, the two means are added. On safety rows the base model predicts once, before training, and its 256
    likeliest tokens are kept at each position; each batch then takes a further forward and backward pass. On own rows
    the base model is the tuned one with its adapter off, in a further forward pass: full fine-tuning has none.
    """

    name: ClassVar[str] = "kl_to_base"
    framings: ClassVar[int] = SafetyMix.model_fields["framings"].default
    """In how many framings each safety prompt is refused, beside the bare one."""
    most_asked: ClassVar[tuple[int, int]] = (256, 128)
    """Most harmful requests and safe look-alikes that the base model answers before training."""

    weight: float = Field(default=10.0, ge=0.001, le=100)
    """Weight of the divergence in the loss, 0.001 to 100."""
    rows: Literal["safety", "own", "both"] = "safety"
    """Where the model is kept close to the base model: on the base model's refusals of harmful probe prompts and its
    answers to safe look-alikes (`safety`), which the task does not need to change, on the job's `own` rows, or on
    `both`."""
    safety_rows: int = Field(default=4, ge=1, le=64)
    """Number of refusals and safe answers that are drawn for each batch, or for each micro-batch: 1 to 64."""
    answer_tokens: int = Field(default=16, ge=1, le=1000)
    """How many tokens at the start of each refusal and safe answer are kept close to the base model, 1 to 1000.
    Whether a model refuses is decided in the first ones, and more tokens cost more time."""
    safe_share: float | None = Field(default=None, ge=0, le=0.9)
    """Share of answers to safe look-alikes in these, 0 to 0.9. Null draws from refusals and safe answers alike, in
    proportion to how many there are. A larger share counters over-refusal, and keeps fewer refusals."""
    on_too_few: OnTooFew = "fail"
    """What happens if `rows` asks for refusals and the base model refuses fewer than 4 of the probe prompts: the job
    fails with `no_safety_rows`, or no refusals and safe answers are used (`skip`), and the report says so."""

    @property
    @override
    def title(self) -> str:
        return f"kl_to_base {self.weight:g}"

    @property
    @override
    def needs_adapter(self) -> bool:
        return self.rows != "safety"

    @override
    def answers(
        self, prompts: PromptSet, *, rows: int, steps: int, framed: bool, max_new_tokens: int
    ) -> tuple[PlannedAnswers, ...] | None:
        if self.rows == "own":
            return None
        return self.asked(prompts, steps=steps, framed=framed).planned(max(SafetyMix.min_new_tokens, max_new_tokens))

    def asked(self, prompts: PromptSet, *, steps: int, framed: bool) -> SafetyRequests:
        """Return how many requests the base model answers: a few hundred, which the steps draw from, or fewer for a
        short run."""
        enough = max(16, 4 * steps * self.safety_rows)
        most = (min(enough, each) for each in self.most_asked)
        return SafetyRequests.of(prompts, self.framings, framed=framed).at_most(*most)
