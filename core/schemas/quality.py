"""How task performance is measured: the `quality` part of a job spec, and the server's list of benchmarks.

Covers: tasks, domains, benchmark entries. Not here: the measuring (core.quality).
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from core.schemas.attacks import ATTACK_FAMILIES
from core.schemas.base import Frozen
from core.schemas.prompts import FileSource

Domain = Literal["general", "mathematics", "medical", "legal", "finance"]
Extraction = Literal["auto", "whole", "number", "choice"]
BenchmarkName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ExactMatch(Frozen):
    """Answers to validation rows that say what the rows' own answers say."""

    kind: Literal["exact_match"] = "exact_match"
    """Share of exact answers."""
    extract: Extraction = "auto"
    """What is compared. `whole`: the whole answer, without regard to case, punctuation and spaces. `number`: what
    follows `####` (GSM8K), or else the last number. `choice`: the letter that is chosen. `auto`: `number` where the
    row's own answer has `####`, else `whole`."""


class RougeL(Frozen):
    """Longest common subsequence of words between an answer and the row's own (Lin 2004), as F1."""

    kind: Literal["rouge_l"] = "rouge_l"
    """Mean ROUGE-L."""


class MultipleChoice(Frozen):
    """Questions with choices, answered by the log-likelihood of each choice's letter (as MMLU is)."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    """Share of right choices."""
    benchmark: BenchmarkName
    """A benchmark in the server's list."""
    max_questions: int = Field(default=200, ge=1, le=100_000)
    """At most so many of its questions; the first ones."""


class LmEval(Frozen):
    """A task of lm-evaluation-harness, by name; the worker needs `securetune[lm-eval]`."""

    kind: Literal["lm_eval"] = "lm_eval"
    """The harness's own figures."""
    task: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*$")
    """The task's name there."""
    limit: int | None = Field(default=200, ge=1, le=100_000)
    """At most so many of its questions; null for all."""
    shots: int | None = Field(default=None, ge=0, le=64)
    """Solved examples in each prompt; the task's own number where it is null."""


QualityTask = Annotated[ExactMatch | RougeL | MultipleChoice | LmEval, Field(discriminator="kind")]


class QualitySpec(Frozen):
    """Task figures before and after training, on rows not trained on. Loss and perplexity are always measured."""

    max_rows: int = Field(default=200, ge=1, le=100_000)
    """At most so many validation rows are scored by their loss."""
    domain: Domain = "general"
    """What the tasks are where they are left out. `general`, `medical`, `legal`: ROUGE-L. `mathematics`: exact match of
    numbers. `finance`: both. Each with the benchmarks that the server lists for the domain."""
    tasks: tuple[QualityTask, ...] | None = Field(default=None, max_length=20)
    """Tasks; null for those of the domain."""
    max_answers: int = Field(default=50, ge=1, le=10_000)
    """At most so many validation rows are answered, for exact match and ROUGE-L; the first ones."""
    max_new_tokens: int = Field(default=256, ge=1, le=4096)
    """Length of such an answer, in tokens."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if self.tasks is not None and len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task is named twice: name each once")
        return self


def _no_suite(name: str) -> str:
    if name in {"task", "over_refusal", *ATTACK_FAMILIES}:
        raise ValueError(f"figures of something else are called {name}: choose another name")
    return name


class BenchmarkEntry(Frozen):
    """One benchmark in the server's list."""

    name: Annotated[BenchmarkName, AfterValidator(_no_suite)]
    """What a job calls it."""
    source: FileSource
    """Where its questions are."""
    layout: Literal["mmlu"] = "mmlu"
    """Rows with `question`, `choices` (a list) and `answer` (an index or a letter)."""
    domain: Domain = "general"
    """Jobs of this domain are measured on it too."""
    description: str = Field(default="", max_length=500)
    """A sentence for its users."""
