"""Measures task performance: loss and perplexity, answers to validation rows, benchmarks, tasks of the harness.

Covers: the order of the measurements, their progress, answers that several tasks score. Not here: each measurement (the
other modules of this package), which tasks a job has (core.quality.tasks), changes from the base model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from core.data import Conversation
from core.data.benchmarks import Question
from core.data.encoded import Encoded
from core.lm.generate import answer
from core.lm.load import BaseModel
from core.meter import Meter
from core.quality.answers import AnsweredRow, TaskScores, score_exact_match, score_rouge
from core.quality.choices import score_multiple_choice
from core.quality.harness import run_lm_eval
from core.quality.loss import mean_loss, perplexity, row_losses
from core.quality.tasks import estimate_size, needs_answers, resolve_tasks
from core.schemas.evaluation import TaskAnswer
from core.schemas.metrics import TASK
from core.schemas.progress import OnProgress
from core.schemas.quality import ExactMatch, LmEval, MultipleChoice, QualitySpec, QualityTask, RougeL
from core.thinking import read_answer

Benchmarks = Mapping[str, tuple[Question, ...]]
"""Questions by benchmark."""


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows, in one order."""

    encoded: Sequence[Encoded]
    """Token ids for the loss; rows whose prompt is too long may be missing."""
    conversations: Sequence[Conversation]
    """Text for generating answers; only the first `max_answers` are used."""


@dataclass(frozen=True)
class _Model:
    """The model to measure."""

    base: BaseModel
    model: nn.Module
    run: str
    system_prompt: str | None
    meter: Meter


def evaluate(
    base: BaseModel,
    model: nn.Module,
    rows: ValidationRows,
    spec: QualitySpec,
    benchmarks: Benchmarks,
    *,
    run: str,
    on_progress: OnProgress,
    system_prompt: str | None = None,
    meter: Meter | None = None,
) -> TaskScores:
    """Measure all tasks of `model`: the base model itself, or the base model with an adapter.

    Args:
        benchmarks: questions of every benchmark that `tasks_for` names; without `spec.tasks`, all of them are used.
        run: label of the figures.
        on_progress: counts rows and questions.
        system_prompt: system turn before questions, if the model is served with one. Validation rows have their own.
        meter: counts the work.

    Raises:
        InvalidInput: code `unknown_lm_eval_task` or `lm_eval_refused`, or a prompt that the chat
            template rejects.
        Unavailable: code `lm_eval_missing` or `lm_eval_failed`.
    """
    measured = _Model(base, model, run, system_prompt, meter or Meter())
    tasks = resolve_tasks(spec, benchmarks)
    conversations = rows.conversations[: spec.max_answers] if needs_answers(tasks) else ()
    sizes = [len(rows.encoded), len(conversations), *(_size(task, benchmarks) for task in tasks)]
    loss_progress, answer_progress, *task_progress = split_progress(on_progress, sizes)
    scores = [_score_loss(measured, rows, loss_progress)]
    answers = _answer_rows(measured, conversations, spec.max_new_tokens, answer_progress)
    for task, report in zip(tasks, task_progress, strict=True):
        size, work = _size(task, benchmarks), "harness" if isinstance(task, LmEval) else "question"
        with measured.meter.measure(work, calls=size, amount=size, precision=base.weights):
            scores.append(_score_task(measured, task, answers, benchmarks, report))
        report(1, 1)
    return (
        tuple(figure for figures, _ in scores for figure in figures),
        tuple(row for _, scored_rows in scores for row in scored_rows),
    )


def split_progress(on_progress: OnProgress, sizes: Sequence[int]) -> list[OnProgress]:
    """Split a progress callback over consecutive tasks of these sizes; the reported number never decreases."""
    furthest = 0

    def report(before: int, size: int, done: int, total: int) -> None:
        nonlocal furthest
        furthest = max(furthest, before + size * min(done, total) // max(total, 1))
        on_progress(furthest, sum(sizes))

    return [partial(report, sum(sizes[:index]), size) for index, size in enumerate(sizes)]


def _size(task: QualityTask, benchmarks: Benchmarks) -> int:
    match task:
        case MultipleChoice():
            return len(_questions(task, benchmarks))
        case LmEval():
            return estimate_size(task)
        case ExactMatch() | RougeL():
            return 0


def _questions(task: MultipleChoice, benchmarks: Benchmarks) -> tuple[Question, ...]:
    return benchmarks[task.benchmark][: task.max_questions]


def _score_task(
    measured: _Model,
    task: QualityTask,
    answers: Sequence[AnsweredRow],
    benchmarks: Benchmarks,
    on_progress: OnProgress,
) -> TaskScores:
    match task:
        case ExactMatch():
            return score_exact_match(measured.run, task, answers)
        case RougeL():
            return score_rouge(measured.run, answers)
        case MultipleChoice():
            return score_multiple_choice(
                measured.base,
                measured.model,
                _questions(task, benchmarks),
                suite=task.benchmark,
                run=measured.run,
                on_progress=on_progress,
                system_prompt=measured.system_prompt,
            )
        case LmEval():
            return run_lm_eval(
                measured.base,
                measured.model,
                task,
                run=measured.run,
                on_progress=on_progress,
                system_prompt=measured.system_prompt,
            )


def _score_loss(measured: _Model, rows: ValidationRows, on_progress: OnProgress) -> TaskScores:
    tokens = sum(len(row.input_ids) for row in rows.encoded)
    with measured.meter.measure("read", calls=len(rows.encoded), amount=tokens, precision=measured.base.weights):
        losses = row_losses(measured.base, measured.model, rows.encoded, on_progress=on_progress)
    loss = mean_loss(losses, run=measured.run)
    answers = tuple(
        TaskAnswer(run=measured.run, suite=TASK, metric="loss", row=row, answer="", reference="", value=value)
        for row, value in zip(_row_numbers(rows), losses, strict=True)
    )
    return (loss, perplexity(loss)), answers


def _row_numbers(rows: ValidationRows) -> list[int]:
    """Number each encoded row, so that changes pair the same rows even if different ones are missing.

    Rows are matched by line. If that is not possible, the encoded rows are counted.
    """
    places = {conversation.line: index for index, conversation in enumerate(rows.conversations)}
    if len(places) < len(rows.conversations) or not places.keys() >= {row.line for row in rows.encoded}:
        return list(range(len(rows.encoded)))
    earlier: Counter[int] = Counter()
    numbers: list[int] = []
    for row in rows.encoded:
        # A conversation may be several encoded rows: the further ones are numbered after all conversations.
        numbers.append(places[row.line] + len(places) * earlier[row.line])
        earlier[row.line] += 1
    return numbers


def _answer_rows(
    measured: _Model, conversations: Sequence[Conversation], max_new_tokens: int, on_progress: OnProgress
) -> list[AnsweredRow]:
    if not conversations:
        return []
    prompts = [row.messages[:-1] for row in conversations if not row.whole]
    size = len(prompts) * max_new_tokens
    with measured.meter.measure("answer_rows", calls=len(prompts), amount=size, precision=measured.base.weights):
        found = answer(measured.base, measured.model, prompts, max_new_tokens=max_new_tokens, on_progress=on_progress)
    texts = iter(found)
    references = [read_answer(row.messages[-1].content) for row in conversations]
    return [
        AnsweredRow(None if row.whole else next(texts), reference)
        for row, reference in zip(conversations, references, strict=True)
    ]
