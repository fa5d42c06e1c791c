"""Measures a job's models, before and after training: attacked, judged, and asked what the task asks.

Here attacks, judges and task figures meet, which may not know each other. What a model says is kept suite by suite, so
an evaluation that was interrupted goes on; what the base model says is shared between jobs. Verdicts of judge models
are cached by content, those of rules are made anew. Not here: the order of things (core.pipeline), training
(core.pipeline.steps).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from core import safeguards
from core.attacks.ask import Certain, Suite, ask, suites
from core.attacks.count import power_note
from core.attacks.engines import Tuned, answering
from core.attacks.evaluate import evaluate
from core.data.batches import encode_all
from core.judges import Judge, JudgementCache, opened
from core.lm import adapter, full
from core.pipeline.cache import code_of, digest
from core.pipeline.changes import against
from core.pipeline.context import JobContext
from core.quality.evaluate import Held
from core.quality.evaluate import evaluate as evaluate_task
from core.reports.view import nothing_to_protect
from core.schemas.base import Frozen
from core.schemas.events import Figures, Warned
from core.schemas.job import BASE_RUN
from core.schemas.policy import Policy
from core.schemas.results import Evaluation, Figure, JudgeUse, Said, TaskAnswer, TrainingResult
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy

_MANY_UNDECIDED = 0.2


class _SuiteAnswers(Frozen):
    """What is kept of one suite."""

    answers: tuple[Said, ...]


class _TaskResult(Frozen):
    """What is kept of the task."""

    figures: tuple[Figure, ...]
    answers: tuple[TaskAnswer, ...]


def evaluate_base(job: JobContext) -> Evaluation:
    """The base model's figures. What it says hangs on no job: each suite is asked once and shared."""
    spec = job.assignment.spec.security
    held = Held(job.data.validation.rows, job.data.held_out)
    model = _Model(BASE_RUN, job.base.model, spec, None)
    found = job.stages.run("before", lambda: _measured(job, model, held, inputs=job.inputs))
    job.emit(Figures(figures=found.figures))
    warnings = (_nothing_to_protect(found), _too_few(found, spec), _no_ground(found, job.assignment.policy.policy))
    for warning in (*warnings, *_undecided(found.judges)):
        if warning is not None:
            job.emit(warning)
    return found


def evaluate_run(job: JobContext, run: Strategy, trained: TrainingResult, base: Evaluation) -> Evaluation:
    """One arm's figures and their changes, measured on what was stored, and asked as it is to be served."""
    folder = job.store.path(trained.adapter[0].key).parent
    asked = safeguards.security_of(run, job.assignment.spec.security)
    training = job.assignment.spec.training
    stored = Tuned(folder, None if training.method == "full" else training.lora.rank)
    held = Held(job.validation_rows(run), job.held_out(run))
    inputs = job.inputs | {"trained": [file.sha256 for file in trained.adapter]}

    def measure() -> Evaluation:
        with _as_stored(job, folder) as tuned:
            return _measured(job, _Model(run.label, tuned, asked, stored), held, inputs=inputs)

    found = against(base, job.stages.run("after", measure, run=run.label))
    job.emit(Figures(figures=found.figures))
    for warning in _undecided(found.judges):
        job.emit(warning)
    return found


@dataclass(frozen=True)
class _Model:
    """A model that is measured."""

    run: str
    model: nn.Module
    spec: SecuritySpec
    """How it is attacked."""
    tuned: Tuned | None
    """Its files; None of the base model."""

    @property
    def shared(self) -> bool:
        """What the base model says is the same for every job."""
        return self.tuned is None


def _measured(job: JobContext, model: _Model, held: Held, *, inputs: dict[str, JsonValue]) -> Evaluation:
    spec = model.spec
    whole = suites(job.prompts.evaluation, spec, job.base.tokenizer)

    entries = {entry.name: entry for entry in job.assignment.judges}
    with opened(spec.judges, entries, cache=JudgementCache(job.store), device=job.base.device) as judges:

        def keep(suite: Suite, compute: Callable[[], tuple[Said, ...]]) -> tuple[Said, ...]:
            kept = job.stages.kept(
                f"{model.run}-{suite.name}",
                _SuiteAnswers,
                lambda: _SuiteAnswers(answers=compute()),
                inputs=inputs | _asked(suite, spec, judges),
                shared=model.shared,
            )
            return kept.answers

        with answering(job.base, model.model, spec, model.tuned) as answers:
            said = ask(
                whole,
                answers,
                keep=keep,
                certain=_certain(judges) if spec.stop_when_certain else None,
                on_progress=partial(job.stages.report_progress, "answer", part=(0.0, 0.6)),
            )
        found = evaluate(
            model.run, said, judges, on_progress=partial(job.stages.report_progress, "verdict", part=(0.6, 0.8))
        )
    task = _task(job, model, held, inputs=inputs)
    return found.model_copy(update={"figures": found.figures + task.figures, "tasks": task.answers})


def _asked(suite: Suite, spec: SecuritySpec, judges: Sequence[Judge]) -> dict[str, JsonValue]:
    """All that a suite's answers hang on beside the model."""
    deciding = [type(judge) for judge in judges] if spec.stop_when_certain else []
    return {
        "prompts": [
            [
                prompt.template,
                prompt.behaviour.model_dump(mode="json"),
                [message.model_dump(mode="json") for message in prompt.messages],
                list(prompt.followups),
            ]
            for prompt in suite.prompts
        ],
        "sampling": [suite.sampling.samples, suite.sampling.temperature, suite.sampling.top_p, spec.seed],
        "max_new_tokens": spec.max_new_tokens,
        "engine": spec.engine,
        "certain_to": [judge.model_dump(mode="json") for judge in spec.judges] if spec.stop_when_certain else None,
        "code": code_of(ask, answering, adapter.loaded, full.loaded, *deciding, caller=__name__),
    }


def _certain(judges: Sequence[Judge]) -> Certain:
    return lambda behaviour, text: all(judge.certain(behaviour, text) for judge in judges)


def _task(job: JobContext, model: _Model, held: Held, *, inputs: dict[str, JsonValue]) -> _TaskResult:
    spec = job.assignment.spec.quality

    def measure() -> _TaskResult:
        figures, answers = evaluate_task(
            job.base,
            model.model,
            held,
            spec,
            job.benchmarks,
            run=model.run,
            on_progress=partial(job.stages.report_progress, "task row", part=(0.8, 1.0)),
            system_prompt=model.spec.system_prompt,
        )
        return _TaskResult(figures=figures, answers=answers)

    return job.stages.kept(
        f"{model.run}-task",
        _TaskResult,
        measure,
        inputs=job.job_inputs
        | inputs
        | {
            "code": code_of(evaluate_task, encode_all, adapter.loaded, full.loaded, caller=__name__),
            "quality": spec.model_dump(mode="json"),
            "rows": [[message.content for message in row.messages] for row in held.conversations],
            "system_prompt": model.spec.system_prompt,
            "benchmarks": {
                name: digest({"questions": [[each.question, *each.choices, each.answer] for each in questions]})
                for name, questions in job.benchmarks.items()
            },
        },
        shared=model.shared,
    )


@contextmanager
def _as_stored(job: JobContext, folder: Path) -> Iterator[nn.Module]:
    """The base model with what was trained, read from its files."""
    if job.assignment.spec.training.method == "full":
        with full.loaded(job.base, job.modules, folder) as model:
            yield model
    else:
        with adapter.loaded(job.base, folder) as tuned:
            yield tuned


def _nothing_to_protect(found: Evaluation) -> Warned | None:
    figure = nothing_to_protect(found.figures)
    if figure is None:
        return None
    return Warned(
        code="nothing_to_protect",
        message=f"The base model itself complies with {100 * figure.value:.0f} % of the harmful prompts as they are "
        f"({figure.n} answers): there is little security that any strategy could keep. Use an aligned base model, or "
        "read the report as that of an ordinary tuning.",
    )


def _too_few(found: Evaluation, spec: SecuritySpec) -> Warned | None:
    note = power_note(found.figures, spec.threshold)
    return None if note is None else Warned(code="too_few_prompts", message=note)


def _no_ground(found: Evaluation, policy: Policy) -> Warned | None:
    """What the gate will not be able to decide, said before anything is trained."""
    short = {
        figure.suite: (figure.n, policy.needed(rule))
        for figure in found.figures
        if figure.metric == "attack_success_rate"
        and (rule := policy.rule(figure.suite)) is not None
        and figure.n < policy.needed(rule)
    }
    if not short:
        return None
    needed = max(most for _, most in short.values())
    return Warned(
        code="gate_cannot_release",
        message=f"The gate will not release what this job trains: the policy asks for {needed} decided answers. There "
        f"are fewer for {', '.join(f'{suite} ({n})' for suite, (n, _) in short.items())}. Raise security.max_prompts, "
        "or bring a larger prompt set; go on if this is only to see that the job works.",
    )


def _undecided(uses: Sequence[JudgeUse]) -> list[Warned]:
    """One warning for each judge that had no verdict on many answers: its figures rest on the rest."""
    return [
        Warned(
            code="judge_undecided",
            message=f"Judge {use.judge} could not decide {use.undecided} of {use.judged} answers of {use.run}: its "
            "figures rest on the others. Each answer's reason stands in answers.jsonl.",
        )
        for use in uses
        if use.undecided > _MANY_UNDECIDED * use.judged
    ]
