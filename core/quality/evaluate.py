"""Measures what a model is for: loss and perplexity, answers to validation rows, benchmarks, tasks of the harness.

Covers: the order of it all, its progress, answers that are asked for once and scored in several ways. Not here: each
measurement (the modules beside this one), which tasks there are (core.quality.tasks), changes against the base model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from core.data import Conversation
from core.data.benchmarks import Question
from core.data.template import Encoded
from core.lm.generate import answer
from core.lm.load import BaseModel
from core.quality.answers import Answered, Scored, exact_match, mean_rouge
from core.quality.choices import multiple_choice
from core.quality.harness import about, lm_eval_task
from core.quality.loss import mean_loss, perplexity, row_losses
from core.quality.tasks import check, chosen, tasks_of, unknown
from core.schemas.evaluation import Figure, TaskAnswer
from core.schemas.metrics import TASK
from core.schemas.progress import OnProgress
from core.schemas.quality import ExactMatch, LmEval, MultipleChoice, QualitySpec, QualityTask, RougeL

__all__ = ["Held", "check", "evaluate", "tasks_of"]


@dataclass(frozen=True)
class Held:
    """The validation rows, in one order."""

    encoded: Sequence[Encoded]
    """As tokens, for the loss; rows whose prompt is too long may be missing."""
    conversations: Sequence[Conversation]
    """As words, for answering; only the first `max_answers` are asked."""


@dataclass(frozen=True)
class _Asked:
    """A model to be measured."""

    base: BaseModel
    model: nn.Module
    run: str
    system_prompt: str | None


def evaluate(
    base: BaseModel,
    model: nn.Module,
    held: Held,
    spec: QualitySpec,
    benchmarks: Mapping[str, tuple[Question, ...]],
    *,
    run: str,
    on_progress: OnProgress,
    system_prompt: str | None = None,
) -> tuple[tuple[Figure, ...], tuple[TaskAnswer, ...]]:
    """Every task figure of `model` (the base itself, or the base with an adapter), and the rows they are made of.

    Args:
        benchmarks: the questions of every benchmark that `tasks_of` names; without `spec.tasks`, all are asked.
        arm: what the figures are filed under.
        tick: called often with (rows and questions done, all of them); may raise to stop.
        system_prompt: goes before questions, where the model is served with one. Validation rows bring their own.

    Raises:
        InvalidInput: code `unknown_benchmark`, `unknown_lm_eval_task` or `lm_eval_refused`, or a prompt that the chat
            template cannot write.
        Unavailable: code `lm_eval_missing` or `lm_eval_failed`.
    """
    asked = _Asked(base, model, run, system_prompt)
    tasks = chosen(spec, benchmarks)
    answering = any(isinstance(task, ExactMatch | RougeL) for task in tasks)
    rows = held.conversations[: spec.max_answers] if answering else ()
    ticks = parts(on_progress, [len(held.encoded), len(rows), *(_size(task, benchmarks) for task in tasks)])
    scored = [_loss(asked, held, ticks[0])]
    said = _answers(asked, rows, spec.max_new_tokens, ticks[1])
    for task, inner in zip(tasks, ticks[2:], strict=True):
        scored.append(_scored(asked, task, said, benchmarks, inner))
        inner(1, 1)
    return (
        tuple(figure for figures, _ in scored for figure in figures),
        tuple(row for _, answers in scored for row in answers),
    )


def parts(on_progress: OnProgress, sizes: Sequence[int]) -> list[OnProgress]:
    """A tick for each of several tasks that follow each other; `tick` hears of them as one, and never goes back."""
    furthest = 0

    def part(before: int, size: int) -> OnProgress:
        def inner(done: int, total: int) -> None:
            nonlocal furthest
            furthest = max(furthest, before + size * min(done, total) // max(total, 1))
            on_progress(furthest, sum(sizes))

        return inner

    return [part(sum(sizes[:index]), size) for index, size in enumerate(sizes)]


def _size(task: QualityTask, benchmarks: Mapping[str, tuple[Question, ...]]) -> int:
    match task:
        case MultipleChoice():
            return len(_questions(task, benchmarks))
        case LmEval():
            return about(task)
        case ExactMatch() | RougeL():
            return 0


def _questions(task: MultipleChoice, benchmarks: Mapping[str, tuple[Question, ...]]) -> tuple[Question, ...]:
    if task.benchmark not in benchmarks:
        raise unknown(task.benchmark, sorted(benchmarks))
    return benchmarks[task.benchmark][: task.max_questions]


def _scored(
    asked: _Asked,
    task: QualityTask,
    said: Sequence[Answered],
    benchmarks: Mapping[str, tuple[Question, ...]],
    on_progress: OnProgress,
) -> Scored:
    match task:
        case ExactMatch():
            return exact_match(asked.run, task, said)
        case RougeL():
            return mean_rouge(asked.run, said)
        case MultipleChoice():
            return multiple_choice(
                asked.base,
                asked.model,
                _questions(task, benchmarks),
                suite=task.benchmark,
                run=asked.run,
                on_progress=on_progress,
                system_prompt=asked.system_prompt,
            )
        case LmEval():
            return lm_eval_task(
                asked.base, asked.model, task, run=asked.run, on_progress=on_progress, system_prompt=asked.system_prompt
            )


def _loss(asked: _Asked, held: Held, on_progress: OnProgress) -> Scored:
    losses = row_losses(asked.base, asked.model, held.encoded, on_progress=on_progress)
    loss = mean_loss(losses, run=asked.run)
    answers = tuple(
        TaskAnswer(run=asked.run, suite=TASK, metric="loss", row=row, answer="", reference="", value=value)
        for row, value in zip(_places(held), losses, strict=True)
    )
    return (loss, perplexity(loss)), answers


def _places(held: Held) -> list[int]:
    """Which row each encoded one is, so that changes pair the same rows also where different ones are missing.

    Found by their lines, in order. Where the conversations do not reach that far, the encoded rows are counted.
    """
    lines = ((index, conversation.line) for index, conversation in enumerate(held.conversations))
    found = [next((index for index, line in lines if line == row.line), None) for row in held.encoded]
    known = [index for index in found if index is not None]
    return known if len(known) == len(found) else list(range(len(found)))


def _answers(
    asked: _Asked, rows: Sequence[Conversation], max_new_tokens: int, on_progress: OnProgress
) -> list[Answered]:
    if not rows:
        return []
    prompts = [row.messages[:-1] for row in rows]
    said: Sequence[str | None] = answer(
        asked.base, asked.model, prompts, max_new_tokens=max_new_tokens, on_progress=on_progress
    )
    return [Answered(text, row.messages[-1].content) for text, row in zip(said, rows, strict=True)]
