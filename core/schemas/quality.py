"""How task performance is measured: the `quality` part of a job spec, and the server's list of benchmarks.

Covers: tasks, domains, benchmark entries. Not here: measuring (core.quality).
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
    """Exact match between answers to validation rows and the rows' own answers."""

    kind: Literal["exact_match"] = "exact_match"
    """Kind of task: the share of exact answers."""
    extract: Extraction = "auto"
    """What is compared. `whole`: the whole answer, ignoring case, punctuation and spaces. `number`: the number
    after `####` (GSM8K), else the last number. `choice`: the chosen letter. `auto`: `number` if the row's answer
    has `####`, else `whole`."""


class RougeL(Frozen):
    """F1 of the longest common subsequence of words between an answer and the row's own answer (Lin 2004)."""

    kind: Literal["rouge_l"] = "rouge_l"
    """Kind of task: the mean ROUGE-L score."""


class MultipleChoice(Frozen):
    """Multiple-choice questions, answered by the log-likelihood of each choice's letter, as in MMLU."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    """Kind of task: the share of correct choices."""
    benchmark: BenchmarkName
    """Name of a benchmark in the server's list."""
    max_questions: int = Field(default=200, ge=1, le=100_000)
    """Largest number of questions, 1 to 100,000; the first ones are used."""


class LmEval(Frozen):
    """A task of lm-evaluation-harness, by name; the worker needs `securetune[lm-eval]`."""

    kind: Literal["lm_eval"] = "lm_eval"
    """Kind of task: figures of lm-evaluation-harness."""
    task: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the task in lm-evaluation-harness."""
    limit: int | None = Field(default=200, ge=1, le=100_000)
    """Largest number of questions, 1 to 100,000; null uses all."""
    shots: int | None = Field(default=None, ge=0, le=64)
    """Number of solved examples in each prompt, 0 to 64; null uses the task's own number."""


QualityTask = Annotated[ExactMatch | RougeL | MultipleChoice | LmEval, Field(discriminator="kind")]


class QualitySpec(Frozen):
    """Task figures before and after training, on validation rows. Loss and perplexity are always measured."""

    max_rows: int = Field(default=200, ge=1, le=100_000)
    """Largest number of validation rows whose loss is measured, 1 to 100,000."""
    domain: Domain = "general"
    """Default tasks if `tasks` is null. `general`, `medical`, `legal`: ROUGE-L. `mathematics`: exact match of numbers.
    `finance`: both. The benchmarks listed for the domain are added."""
    tasks: tuple[QualityTask, ...] | None = Field(default=None, max_length=20)
    """Tasks to measure; null uses those of the domain."""
    max_answers: int = Field(default=50, ge=1, le=10_000)
    """Largest number of validation rows that are answered for exact match and ROUGE-L, 1 to 10,000; the first ones."""
    max_new_tokens: int = Field(default=256, ge=1, le=4096)
    """Longest answer to a validation row in tokens, 1 to 4096."""

    @model_validator(mode="after")
    def _check_duplicates(self) -> Self:
        if self.tasks is not None and len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task is named twice: name each once")
        return self


def _reject_suite(name: str) -> str:
    if name in {"task", "over_refusal", *ATTACK_FAMILIES}:
        raise ValueError(f"{name!r} is the name of other figures: choose another name")
    return name


class BenchmarkEntry(Frozen):
    """One benchmark in the server's list."""

    name: Annotated[BenchmarkName, AfterValidator(_reject_suite)]
    """Name of the benchmark in jobs."""
    source: FileSource
    """File or hub repository with the questions."""
    layout: Literal["mmlu"] = "mmlu"
    """Rows with `question`, `choices` (a list) and `answer` (an index or a letter)."""
    domain: Domain = "general"
    """Domain whose jobs are measured on the benchmark by default."""
    description: str = Field(default="", max_length=500)
    """A sentence about the benchmark for its users."""
