"""The steps of a job: each takes what is prepared, calls one stage, and hands on a frozen result.

Here the stages meet that may not know each other: the robustness analysis gets its probe run from training.
Not here: their order (core.pipeline), what they compute (their folders).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel

from core import judges
from core.attacks.prompts import Brought
from core.data import Conversation, files
from core.data.batches import encode_all, masked_sample, split
from core.data.benchmarks import Question
from core.data.benchmarks import read as read_questions
from core.data.template import end_of_turn
from core.errors import InvalidModel, TrainingFailed
from core.lm import adapter, full
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module
from core.lm.vllm_engine import check_vllm
from core.pipeline import screen as screened
from core.pipeline.context import Prepared, Rows
from core.pipeline.stages import Emit, Stages, digest
from core.quality import tasks
from core.robustness.analyse import Enough, analyse
from core.robustness.doubt import doubt
from core.robustness.readings import Readings
from core.safeguards import runs
from core.safeguards.projection import project
from core.schemas.analysis import AnalysisSpec
from core.schemas.events import Metrics, Warned
from core.schemas.job import Assignment, PromptFile
from core.schemas.models import BaseModelEntry
from core.schemas.prompts import Use
from core.schemas.quality import BenchmarkEntry, MultipleChoice
from core.schemas.results import (
    DataResult,
    Projection,
    RobustnessResult,
    StoredFile,
    TrainedStep,
    TrainingResult,
)
from core.schemas.strategy import Strategy, analysis_of
from core.schemas.training import FULL_RATE_SHARE, LearningPlan, TrainingSpec
from core.storage import ArtifactStore
from core.training import loop
from core.training.checkpoint import Checkpoints
from core.training.objective import objective_of
from core.training.probe import probe
from core.training.strategies import plan

_MOST_HELD_OUT = 200
_WATCHED = 32
"""Probe prompts whose refusals are read while training."""
_JSON = "application/json"


def load_base(entry: BaseModelEntry, device: str, training: TrainingSpec | None = None) -> BaseModel:
    """The base model, its weights as the training needs them.

    Its answers end where a trained turn does, also where its configuration names another token.
    """
    training = training or TrainingSpec()
    base = load(entry, choose_device(device), precision=training.precision, four_bit=training.method == "qlora")
    base.stop_also_at(end_of_turn(base.tokenizer))
    return base


def check(
    assignment: Assignment, entry: BaseModelEntry, base: BaseModel, modules: Sequence[Module], emit: Emit
) -> None:
    """Find out what the job cannot be done with before anything is computed, and say what is out of the ordinary."""
    spec = assignment.spec
    runs.check(spec, entry, base, modules)
    judges.check(spec.security.judges, {judge.name: judge for judge in assignment.judges})
    tasks.check(spec.quality, assignment.benchmarks)
    if spec.security.engine == "vllm":
        check_vllm(base.device)
    if base.identity.chat_template == "plain":
        emit(
            Warned(
                code="plain_chat_template",
                message=f"Base model {entry.name!r} brings no chat template, so securetune's plain one is used, as "
                "the server's list of models says. All figures hold for it alone. What is handed out carries it: serve "
                "with it.",
            )
        )


def brought(assignment: Assignment, store: ArtifactStore) -> Brought:
    """The prompts of sets that the job names."""
    chosen: dict[Use, PromptFile | None] = {"harmful": assignment.harmful, "safe": assignment.safe}
    return {use: (file.name, files.prompts(file, store, use)) for use, file in chosen.items() if file is not None}


def benchmarks(assignment: Assignment) -> dict[str, tuple[Question, ...]]:
    """The questions of every benchmark that the job is measured on."""
    entries = {entry.name: entry for entry in assignment.benchmarks}
    wanted = tasks.tasks_of(assignment.spec.quality, assignment.benchmarks)
    return {
        task.benchmark: _questions(entries[task.benchmark], most=task.max_questions)
        for task in wanted
        if isinstance(task, MultipleChoice)
    }


def _questions(entry: BenchmarkEntry, *, most: int) -> tuple[Question, ...]:
    path = files.fetch_file(
        entry.source, name=f"The benchmark {entry.name!r}", code="benchmark_missing", param="quality.tasks"
    )
    return read_questions(path, most=most)


def encode(
    assignment: Assignment, rows: Sequence[Conversation], store: ArtifactStore, base: BaseModel, stages: Stages
) -> Rows:
    """Hold some rows out if no validation data is named, and tokenise all with their labels."""
    spec = assignment.spec.training
    if assignment.validation is not None:
        held_out: Sequence[Conversation] = screened.read(store, assignment.validation)
    else:
        rows, held_out = split(rows, share=spec.validation_split, seed=spec.seed, cap=_MOST_HELD_OUT)
    limit = min(spec.max_length, base.context)
    most = assignment.spec.quality.max_rows
    training = encode_all(stages.counted(rows), base.tokenizer, max_length=limit)
    try:
        validation = encode_all(held_out[:most], base.tokenizer, max_length=limit)
    except TrainingFailed as error:
        raise TrainingFailed(f"Of the validation rows: {error.message}", code=error.code, param=error.param) from error
    if lost := training.dropped + validation.dropped:
        stages.emit(
            Warned(
                code="prompts_too_long",
                message=f"Rows left out because their prompt has {limit} tokens or more: {lost}. Raise max_length to "
                "keep them, as far as the model's context allows.",
            )
        )
    summary = DataResult(
        training_rows=len(training.rows),
        validation_rows=len(validation.rows),
        dropped_rows=lost,
        truncated_rows=training.truncated + validation.truncated,
        tokens=training.tokens,
        trained_tokens=training.trained_tokens,
        sample=masked_sample(training.rows[0], base.tokenizer),
    )
    rewritten = any(run.safeguards.safe_template for run in assignment.spec.runs)
    return Rows(training, validation, summary, held_out[:most], rows if rewritten else ())


def robustness(job: Prepared, analysis: AnalysisSpec) -> RobustnessResult:
    """Measure which modules are robust on this job's data; a job of the same data, training and settings finds it."""
    found = job.stages.stored(
        "robustness",
        RobustnessResult,
        lambda: analyse(
            job.base,
            job.modules,
            analysis,
            job.prompts.probe,
            job.data.training.rows[: analysis.rows],
            train_probe=partial(_probe, job),
            prepared=partial(job.stages.report_progress, "probe prompt", part=(0.0, 0.05)),
            on_progress=partial(job.stages.report_progress, "reading", part=(0.3, 1.0)),
        ),
        inputs=job.job_inputs
        | {"analysis": analysis.model_dump(mode="json"), "prompts": job.prompts.probe.model_dump(mode="json")},
        shared=True,
    )
    if warning := doubt(found):
        job.emit(warning)
    return found


def training(job: Prepared, run: Strategy, maps: Mapping[AnalysisSpec, RobustnessResult]) -> TrainingResult:
    """Turn the arm's strategy into learning rates, train with them and store what was trained.

    A run that was interrupted goes on from its newest checkpoint, which is gone once the result is stored.
    """
    analysis = analysis_of(run)
    rates = plan(run, job.modules, maps[analysis] if analysis else None)
    inputs = job.job_inputs | {"plan": rates.model_dump(mode="json"), "safeguards": _safeguards(job, run)}
    key = f"jobs/{job.assignment.job_id}/checkpoints/{run.label}-{digest(inputs)}.safetensors"
    checkpoints = Checkpoints(job.store, key)
    try:
        result = job.stages.stored(
            "training", TrainingResult, lambda: _train(job, run, rates, checkpoints), inputs=inputs, run=run.label
        )
    except TrainingFailed:  # it would fail again
        checkpoints.remove()
        raise
    checkpoints.remove()
    return result


def _safeguards(job: Prepared, run: Strategy) -> JsonValue:
    return runs.inputs(run, job.assignment.spec, job.entry, job.prompts)


def _probe(job: Prepared, steps: int, seed: int, enough: Enough) -> AbstractContextManager[PeftModel]:
    """An adapter also where the job trains the modules' own weights: then it takes an adapter's rate."""
    spec = job.assignment.spec.training

    def told(step: TrainedStep, total: int) -> None:
        job.stages.report_progress("probe step", step.step, total, part=(0.05, 0.3))

    return probe(
        job.base,
        job.modules,
        job.data.training.rows,
        spec,
        steps=steps,
        seed=seed,
        learning_rate=job.learning_rate / FULL_RATE_SHARE if spec.method == "full" else job.learning_rate,
        enough=enough,
        on_step=told,
    )


def _train(job: Prepared, run: Strategy, rates: LearningPlan, checkpoints: Checkpoints) -> TrainingResult:
    spec = job.assignment.spec.training
    rows = job.training_rows(run)
    # Asked of the base model, so before anything is put on it.
    on_progress = partial(job.stages.report_progress, "refusal", part=(0.0, 0.05))
    added = runs.added_rows(run, rows, job.base, job.prompts, spec=job.assignment.spec, on_progress=on_progress)

    watched = _refusals_watched(job)

    def on_step(step: TrainedStep, total: int) -> None:
        if loop.logged(step.step, total) or step.validation_loss is not None:
            job.emit(
                Metrics(
                    run=rates.strategy,
                    step=step.step,
                    total_steps=total,
                    loss=step.loss,
                    learning_rate=step.learning_rate,
                    validation_loss=step.validation_loss,
                )
            )
        job.stages.report_progress("step", step.step, total, part=(0.05 if added.rows else 0.0, 1.0))

    with _opened(job) as tuned:
        done = loop.train(
            tuned,
            rows + added.rows,
            rates,
            spec,
            learning_rate=job.learning_rate,
            pad_id=job.base.pad_id,
            on_step=on_step,
            objective=objective_of(run.safeguards),
            validation=job.validation_rows(run),
            refusal_nll=watched,
            checkpoints=checkpoints,
        )
        projections = _projected(job, run, tuned)
        stored = _store_trained(job, tuned, run)
    return TrainingResult(
        run=rates.strategy,
        plan=rates,
        learning_rate=job.learning_rate,
        steps=done.steps,
        curve=done.curve,
        trainable_parameters=done.trainable_parameters,
        seconds=done.seconds,
        adapter=stored,
        validation=done.validation,
        security=done.security,
        best_step=done.best_step,
        stopped_early=done.stopped_early,
        safety_rows=len(added.rows),
        distinct_safety_rows=added.distinct,
        projections=projections,
    )


def _refusals_watched(job: Prepared) -> loop.RefusalNll | None:
    """How the base model's refusals are read while training; None where it says nothing to any probe prompt."""
    try:
        read = Readings(
            job.base,
            job.prompts.probe,
            (),
            count=_WATCHED,
            seed=0,
            on_progress=partial(job.stages.report_progress, "prompt", part=(0.0, 0.0)),
        )
    except InvalidModel:
        return None
    return read.refusal_nll


def _projected(job: Prepared, run: Strategy, tuned: PeftModel | PreTrainedModel) -> tuple[Projection, ...]:
    spec = run.safeguards.project_to_safe
    if spec is None or not isinstance(tuned, PeftModel):  # core.catalog.check_arms refuses it for a full run
        return ()
    return project(tuned, job.modules, job.base.folder, runs.unaligned_folder(job.entry), spec)


@contextmanager
def _opened(job: Prepared) -> Iterator[PeftModel | PreTrainedModel]:
    """The base model with what will be trained: a fresh adapter, or the modules' own weights."""
    spec = job.assignment.spec.training
    if spec.method == "full":
        with full.opened(job.base.model, job.modules) as model:
            yield model
    else:
        with adapter.attached(job.base.model, job.modules, spec.lora, seed=spec.seed) as tuned:
            yield tuned


def _store_trained(job: Prepared, tuned: PeftModel | PreTrainedModel, run: Strategy) -> tuple[StoredFile, ...]:
    name = job.trained_name
    with job.store.staging() as folder:  # only now: staging is swept of what is a day old, and training may take longer
        if isinstance(tuned, PeftModel):
            files = adapter.save(tuned, job.base, folder)
        else:
            files = full.save(tuned, job.base, job.modules, folder)
        return tuple(
            job.store.adopt(
                f"{job.folder}/{name}s/{run.label}/{path.name}",
                path,
                name=f"{name}/{path.name}",
                media_type=_JSON if path.suffix == ".json" else "application/octet-stream",
                gated=True,
            )
            for path in files
        )
