"""Safeguards that change or add training rows, or the prompt that the model is served with.

Not here: what they do (core.safeguards). Sizes without a source are this project's choice.
"""

from math import ceil
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field
from typing_extensions import override

from core.schemas.prompts import PromptSet
from core.schemas.safeguards.interface import PlannedAnswers, SafeguardOptions

OnTooFew = Literal["fail", "skip"]
SAFETY_PROMPT = (
    "You help people with what they ask. Politely decline anything that could hurt somebody or break the law, whatever "
    "reason is given and however the request is worded, and say briefly why."
)
"""Default system prompt of `safe_template`."""


class SafetyMix(SafeguardOptions):
    """Adds the base model's own refusals to the training rows (Bianchi et al. 2024, "Safety-Tuned LLaMAs").

    The rows are harmful requests from the probe half of the prompt set with the base model's refusals, and safe
    look-alikes of that half, if the set has any, with its answers. The half that figures are measured on is never
    trained on. Rows repeat if `share` asks for more than there are.
    """

    name: ClassVar[str] = "safety_mix"
    min_new_tokens: ClassVar[int] = 128
    """Least limit on the length of the base model's answers in tokens, since an answer that is cut off teaches no
    end."""

    share: float = Field(default=0.05, gt=0, le=0.5)
    """Share of these rows in the rows trained on, above 0 and at most 0.5. They are added to the job's rows, so an
    epoch takes more steps."""
    framings: int = Field(default=3, ge=0, le=10)
    """In how many framings (a persona, other tasks around it, a demanded opening and so on) each harmful request is
    put to the base model, in addition to the bare request: 0 to 10. With 0, attacks that wrap a request succeed more
    often."""
    own_format: bool = True
    """Whether each request is also put into the format of the job's rows: the system prompt, and the text around the
    users' requests, that at least 80 % of them share. Without such a format nothing is added."""
    safe_share: float | None = Field(default=None, ge=0, le=0.9)
    """Share of answers to safe look-alikes in the added rows, 0 to 0.9. Null takes as many as there are in proportion
    to the refusals. A larger share counters over-refusal."""
    on_too_few: OnTooFew = "fail"
    """What happens if the base model refuses fewer than 4 of the probe prompts, and so has no refusals to mix in: the
    job fails with `no_safety_rows`, or the run is trained without these rows (`skip`), and its report says so."""

    @property
    @override
    def title(self) -> str:
        return f"safety_mix {100 * self.share:g} %"

    @override
    def answers(
        self, prompts: PromptSet, *, rows: int, steps: int, framed: bool, max_new_tokens: int
    ) -> tuple[PlannedAnswers, ...]:
        asked = self.asked(prompts, rows=rows, framed=self.own_format and framed)
        return asked.planned(max(self.min_new_tokens, max_new_tokens))

    def asked(self, prompts: PromptSet, *, rows: int, framed: bool) -> "SafetyRequests":
        """Return how many requests the base model answers: enough for the rows to be added to `rows`, with a reserve
        for answers that cannot be used."""
        there, added = SafetyRequests.of(prompts, self.framings, framed=framed), mixed_rows(rows, self.share)
        share = there.safe / max(1, sum(there)) if self.safe_share is None else self.safe_share
        return there.at_most(_reserve(added * (1 - share)), _reserve(added * share))


class SafetyRequests(NamedTuple):
    """Requests that the base model answers, so that its answers can be trained on."""

    harmful: int
    """Harmful requests, bare, in framings and in the frame of the job's rows."""
    safe: int
    """Safe look-alikes, bare and in the frame."""

    @classmethod
    def of(cls, prompts: PromptSet, framings: int, *, framed: bool) -> Self:
        """Return all that a prompt set has."""
        return cls(
            len(prompts.unreported_harmful) * (1 + framings + framed), len(prompts.unreported_safe) * (1 + framed)
        )

    def at_most(self, harmful: int, safe: int) -> Self:
        """Return the same with limits."""
        return self._replace(harmful=min(self.harmful, harmful), safe=min(self.safe, safe))

    def planned(self, max_new_tokens: int) -> tuple[PlannedAnswers, ...]:
        """Return the answers to these requests."""
        return (
            PlannedAnswers("refusals", self.harmful, max_new_tokens),
            PlannedAnswers("safe answers", self.safe, max_new_tokens),
        )


def _reserve(rows: float) -> int:
    """How many requests are answered for so many rows: an aligned model refuses at least a third of them in most
    framings."""
    return 3 * ceil(rows) + 16


def mixed_rows(rows: int, share: float) -> int:
    """Return the number of rows that make up `share` of all rows once they are added to `rows`, at least 1."""
    return max(1, round(share * rows / (1.0 - share)))


class SelfDistill(SafeguardOptions):
    """Trains on the base model's own rewriting of each row's last answer (SDFT, Yang et al. 2024, arXiv 2402.13669).

    Before training, the base model gets the request with the row's answer and writes it in its own words. The original
    answer stays where the rewritten one is empty, cut off at the limit, a refusal although the original is none, or
    without the original's final answer. Rows with tools or thinking stay as they are.
    """

    name: ClassVar[str] = "self_distill"

    max_new_tokens: int = Field(default=256, ge=16, le=4096)
    """Limit on the length of a rewritten answer in tokens, 16 to 4096."""

    @override
    def answers(
        self, prompts: PromptSet, *, rows: int, steps: int, framed: bool, max_new_tokens: int
    ) -> tuple[PlannedAnswers, ...]:
        return (PlannedAnswers("rewritten rows", rows, self.max_new_tokens),)


class AnswerPreview(SafeguardOptions):
    """Shows the first words of each answer in the request that is trained on (LookAhead Tuning, Liu et al. 2025, arXiv
    2503.19041), so that training changes the first tokens of answers less.

    The model is evaluated and served without it. The paper shows tokens; words need no tokenizer. At most half of an
    answer is shown.
    """

    name: ClassVar[str] = "answer_preview"

    words: int = Field(default=6, ge=1, le=100)
    """How many words of the answer are shown, 1 to 100."""
    virtual: bool = False
    """Whether a fixed opening is shown and put in front of each answer, in place of the answer's first words (the
    paper's virtual answers)."""

    @property
    @override
    def title(self) -> str:
        return "answer_preview virtual" if self.virtual else f"answer_preview {self.words}"


class SafeTemplate(SafeguardOptions):
    """Trains without a system prompt and serves with a safety prompt (PTST, Lyu et al. 2024).

    System turns are removed from the rows that this run is trained on. The run is evaluated with this system prompt
    instead of `security.system_prompt`, and must be served with it. It helps only if the base model follows system
    prompts.
    """

    name: ClassVar[str] = "safe_template"

    system_prompt: str = Field(default=SAFETY_PROMPT, min_length=1, max_length=8000, pattern=r"^[^\x00]*$")
    """The system prompt to evaluate and serve with, 1 to 8000 characters."""

    @property
    @override
    def serving_system_prompt(self) -> str | None:
        return self.system_prompt

    @property
    @override
    def serving_note(self) -> str | None:
        return "Trained without a system prompt and evaluated with the one below (`safe_template`)."
