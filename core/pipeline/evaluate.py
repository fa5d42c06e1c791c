"""The evaluation stages: measure the base model and every trained run on attacks, safe prompts and the task.

Here attacks, judges and task figures meet, which do not import each other. Answers are stored suite by suite, so that
an interrupted evaluation resumes; those of the base model are shared between jobs. The base model is measured twice,
and the difference is the noise that changes are compared with. Verdicts of judge models are cached
by content, those of rules are computed again. Not here: changes from the base model (core.pipeline.changes), training
(core.pipeline.train).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from core import safeguards
from core.attacks.ask import Generate, IsCertain, Suite, ask, build_suites
from core.attacks.count import power_note
from core.attacks.engines import TrainedFiles, open_engine
from core.attacks.evaluate import evaluate
from core.data.template import encode_all
from core.judges.cache import JudgementCache
from core.judges.interface import Judge
from core.judges.opening import open_judges
from core.lm import adapter, full
from core.pipeline.cache import code_of, digest
from core.pipeline.changes import add_changes
from core.pipeline.context import JobContext
from core.pipeline.measured import record, why_not_released
from core.quality.evaluate import ValidationRows
from core.quality.evaluate import evaluate as evaluate_task
from core.reports.view import nothing_to_protect
from core.schemas.base import Frozen
from core.schemas.data import Message
from core.schemas.evaluation import Evaluation, Figure, RawAnswer, TaskAnswer
from core.schemas.events import Figures, Warned
from core.schemas.job import BASE_RUN
from core.schemas.policy import Policy
from core.schemas.progress import OnProgress
from core.schemas.results import TrainingResult
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy
from core.thinking import split_thinking
from core.training.proof import check_proof, merge_warning

_MAX_UNDECIDED_SHARE = 0.2
"""A larger share of answers that a judge could not decide is worth a warning."""
_MAX_CUT_SHARE = 0.5
"""A larger share of answers that are cut inside the model's thinking is worth a warning."""

_SEEDS = 2**31
_SEED_STEP = 2**30
"""Distance of the second measurement's seed from the first one's, modulo `_SEEDS`. Engines may add the number of an
answer to the seed, so a seed nearby would repeat answers."""


class _SuiteAnswers(Frozen):
    """The stored answers to one suite."""

    answers: tuple[RawAnswer, ...]


class _TaskResult(Frozen):
    """The stored figures and answers of the task."""

    figures: tuple[Figure, ...]
    answers: tuple[TaskAnswer, ...]


def evaluate_base(job: JobContext) -> tuple[Evaluation, Evaluation | None]:
    """The base model's evaluation, and a second one with other batches and another seed, if the job measures noise.

    The answers do not depend on the job, so jobs share them.
    """
    spec = job.assignment.spec.security
    held = ValidationRows(job.data.validation.rows, job.data.held_out)
    model = _Model(BASE_RUN, job.base.model, spec, None)
    evaluation = job.stages.run("before", lambda: _measure(job, model, held, inputs=job.inputs))
    job.emit(Figures(figures=evaluation.figures))
    for warning in _base_warnings(evaluation, spec, job.assignment.policy.policy):
        job.emit(warning)
    if not spec.measure_noise:
        return evaluation, None
    other = replace(job, base=replace(job.base, half_batches=True))
    again = replace(model, spec=spec.model_copy(update={"seed": (spec.seed + _SEED_STEP) % _SEEDS}))
    second = job.stages.run("noise", lambda: _measure(other, again, held, inputs=other.inputs))
    uses = (use.model_copy(update={"run": f"{use.run}, measured again"}) for use in second.judges)
    return evaluation.model_copy(update={"judges": (*evaluation.judges, *uses)}), second


def evaluate_run(
    job: JobContext, run: Strategy, trained: TrainingResult, base: Evaluation, again: Evaluation | None
) -> Evaluation:
    """A run's evaluation with changes from the base model. The stored files are loaded, and the model gets the system
    prompt that it must be served with. `again` is the base model's second evaluation.
    """
    folder = job.store.path(trained.adapter[0].key).parent
    security = safeguards.security_of(run, job.assignment.spec.security)
    training = job.assignment.spec.training
    stored = TrainedFiles(folder, None if training.method == "full" else training.lora.rank)
    held = ValidationRows(job.validation_rows(run), job.held_out(run))
    inputs = job.inputs | {"trained": [file.sha256 for file in trained.adapter]}

    def measure() -> Evaluation:
        at_base = job.base_probabilities  # before trained weights are loaded
        with _load_trained(job, folder) as tuned:
            proof = at_base.compare(tuned, run.label)
            check_proof(proof)
            model = _Model(run.label, tuned, security, stored, run.safeguards.serving_system_prompt is not None)
            found = _measure(job, model, held, inputs=inputs)
        return found.model_copy(update={"weights": proof})

    evaluation = add_changes(base, job.stages.run("after", measure, run=run.label), again)
    job.emit(Figures(figures=evaluation.figures))
    for warning in _answer_warnings(evaluation, security):
        job.emit(warning)
    if warning := merge_warning(evaluation.weights, job.base.weights):
        job.emit(warning)
    return evaluation


@dataclass(frozen=True)
class _Model:
    """A model to measure."""

    run: str
    model: nn.Module
    spec: SecuritySpec
    """The attacks, with the system prompt of this model."""
    tuned: TrainedFiles | None
    """The files of a trained model; None for the base model, whose answers are shared between jobs."""
    serving: bool = False
    """Whether a safeguard of the run requires the system prompt."""


def _measure(job: JobContext, model: _Model, held: ValidationRows, *, inputs: dict[str, JsonValue]) -> Evaluation:
    spec = model.spec
    all_suites = build_suites(job.prompts.evaluation, spec, job.base.tokenizer)
    entries = {entry.name: entry for entry in job.assignment.judges}
    with open_judges(spec.judges, entries, cache=JudgementCache(job.store), device=job.base.device) as judges:

        def keep(suite: Suite, compute: Callable[[], tuple[RawAnswer, ...]]) -> tuple[RawAnswer, ...]:
            stored = job.stages.cached(
                f"{model.run}-{suite.name}",
                _SuiteAnswers,
                lambda: _SuiteAnswers(answers=compute()),
                inputs=inputs | _suite_inputs(suite, spec, judges, job.engine),
                shared=model.tuned is None,
            )
            return stored.answers

        with open_engine(job.base, model.model, spec, model.tuned, job.vllm_python) as answers:
            said = ask(
                all_suites,
                _metered(answers, job, spec),
                keep=keep,
                is_certain=_certain(judges) if spec.stop_when_certain else None,
                on_progress=partial(job.stages.report_progress, "answer", part=(0.0, 0.6)),
            )
        verdicts = len(said) * spec.model_judges
        with job.stages.meter.measure("judge", calls=verdicts, amount=verdicts):
            found = evaluate(
                model.run, said, judges, on_progress=partial(job.stages.report_progress, "verdict", part=(0.6, 0.8))
            )
    task = _measure_task(job, model, held, inputs=inputs)
    return found.model_copy(
        update={
            "figures": found.figures + task.figures,
            "tasks": task.answers,
            "measured": record(job, model.spec, found, serving=model.serving),
        }
    )


def _metered(generate: Generate, job: JobContext, spec: SecuritySpec) -> Generate:
    """The same engine, with its answers counted. Answers of an earlier attempt or another job are not."""

    def generate_and_count(
        conversations: Sequence[Sequence[Message]],
        *,
        temperature: float,
        top_p: float,
        early_stop: Callable[[int, str], bool] | None,
        on_progress: OnProgress,
    ) -> Sequence[str | None]:
        count = len(conversations)
        with job.stages.meter.measure(
            "answer",
            calls=count,
            amount=count * spec.max_new_tokens,
            precision=job.base.weights,
            method=spec.engine,
        ):
            return generate(
                conversations, temperature=temperature, top_p=top_p, early_stop=early_stop, on_progress=on_progress
            )

    return generate_and_count


def _suite_inputs(
    suite: Suite, spec: SecuritySpec, judges: Sequence[Judge], engine: Mapping[str, str]
) -> dict[str, JsonValue]:
    """Everything besides the model that the answers to a suite depend on."""
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
        "engine": dict(engine),
        "certain_to": [judge.model_dump(mode="json") for judge in spec.judges] if spec.stop_when_certain else None,
        "code": code_of(ask, open_engine, adapter.loaded, full.loaded, *deciding, caller=__name__),
    }


def _certain(judges: Sequence[Judge]) -> IsCertain:
    return lambda behaviour, text: all(judge.is_certain(behaviour, text) for judge in judges)


def _measure_task(job: JobContext, model: _Model, held: ValidationRows, *, inputs: dict[str, JsonValue]) -> _TaskResult:
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
            meter=job.stages.meter,
        )
        return _TaskResult(figures=figures, answers=answers)

    return job.stages.cached(
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
        shared=model.tuned is None,
    )


def _load_trained(job: JobContext, folder: Path) -> AbstractContextManager[nn.Module]:
    """The trained model, loaded from its stored files."""
    if job.assignment.spec.training.method == "full":
        return full.loaded(job.base, job.modules, folder)
    return adapter.loaded(job.base, folder)


def _base_warnings(evaluation: Evaluation, spec: SecuritySpec, policy: Policy) -> Iterator[Warned]:
    """What the base model's figures show before anything is trained."""
    if figure := nothing_to_protect(evaluation.figures):
        yield Warned(
            code="nothing_to_protect",
            message=f"The base model complies with {100 * figure.value:.0f} % of the unmodified harmful prompts "
            f"({figure.n} answers), so there is little security that a strategy could preserve. Use an aligned base "
            "model, or read the report as one of ordinary fine-tuning.",
        )
    if note := power_note(evaluation.figures, spec.threshold):
        yield Warned(code="too_few_prompts", message=note)
    if why := why_not_released(evaluation, policy):
        yield Warned(
            code="gate_cannot_release",
            message=f"The gate will not release this job's model. {why} Ignore this if the job is only a trial.",
        )
    yield from _answer_warnings(evaluation, spec)


def _answer_warnings(evaluation: Evaluation, spec: SecuritySpec) -> Iterator[Warned]:
    """A warning if most answers are cut inside the thinking, and one for each judge that could not decide many answers,
    because its figures leave them out.
    """
    sent = [answer for answer in evaluation.answers if answer.sent]
    cut = [answer for answer in sent if split_thinking(answer.answer, opened=False).cut]
    if len(cut) > _MAX_CUT_SHARE * len(sent):
        yield Warned(
            code="answers_cut_in_thinking",
            message=f"{len(cut)} of {len(sent)} answers of {cut[0].run} are cut inside the model's thinking, and "
            f"cannot be judged. Raise security.max_new_tokens, which is {spec.max_new_tokens}, until most answers are "
            "complete.",
        )
    for use in evaluation.judges:
        if use.undecided > _MAX_UNDECIDED_SHARE * use.judged:
            yield Warned(
                code="judge_undecided",
                message=f"Judge {use.judge} could not decide {use.undecided} of {use.judged} answers of {use.run}, "
                "and its figures leave them out. The file answers.jsonl has the reason for each answer.",
            )
