"""The steps of a job: each takes what is prepared, calls one stage, and hands on a frozen result.

Here the stages meet that may not know each other: the robustness analysis gets its probe run from training.
Not here: their order (core.pipeline), what they compute (their folders).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel

from core import arms
from core.data import Conversation, files
from core.data import load as load_rows
from core.data.batches import encode_all, masked_sample, split
from core.data.benchmarks import Question
from core.data.benchmarks import read as read_questions
from core.data.template import end_of_turn
from core.errors import TrainingFailed
from core.lm import adapter, full
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module
from core.lm.vllm_engine import check_vllm
from core.prepared import Prepared, Rows
from core.provenance import software
from core.quality import tasks
from core.reports.render import html
from core.robustness.analyse import Enough, analyse
from core.robustness.doubt import doubt
from core.security import judges
from core.security.count import power_note
from core.security.prompts import Brought
from core.spec.analysis import AnalysisSpec
from core.spec.events import Metrics, Warned
from core.spec.job import Assignment, DatasetRef, PromptFile
from core.spec.models import BaseModelEntry
from core.spec.prompts import Use
from core.spec.quality import BenchmarkEntry, MultipleChoice
from core.spec.results import (
    DataResult,
    Evaluation,
    Outcome,
    Projection,
    Report,
    RobustnessResult,
    StoredFile,
    TrainedStep,
    TrainingResult,
)
from core.spec.security import SecuritySpec
from core.spec.strategy import Strategy, analysis_of
from core.spec.training import FULL_RATE_SHARE, LearningPlan, TrainingSpec
from core.stages import Emit, Stages, digest
from core.storage import ArtifactStore
from core.storage.bundle import write_tar
from core.training import loop
from core.training.checkpoint import Checkpoints
from core.training.objective import objective_of
from core.training.probe import probe
from core.training.projection import project
from core.training.strategies import plan

_MOST_HELD_OUT = 200
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
    arms.check(spec, entry, base, modules)
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


def encode(assignment: Assignment, store: ArtifactStore, base: BaseModel, stages: Stages, emit: Emit) -> Rows:
    """Read the uploaded rows, hold some out if no validation data is named, and tokenise them with their labels."""
    spec = assignment.spec.training
    rows = _read(store, assignment.dataset)
    if assignment.validation is not None:
        held_out = _read(store, assignment.validation)
    else:
        rows, held_out = split(rows, share=spec.validation_share, seed=spec.seed, cap=_MOST_HELD_OUT)
    limit = min(spec.max_length, base.context)
    most = assignment.spec.quality.max_rows
    training = encode_all(_counted(rows, stages), base.tokenizer, max_length=limit)
    try:
        validation = encode_all(held_out[:most], base.tokenizer, max_length=limit)
    except TrainingFailed as error:
        raise TrainingFailed(f"Of the validation rows: {error.message}", code=error.code, param=error.param) from error
    if lost := training.dropped + validation.dropped:
        emit(
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
    rewritten = any(arm.safeguards.safe_template for arm in assignment.spec.arms)
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
            prepared=partial(job.stages.tick, "probe prompt", part=(0.0, 0.05)),
            tick=partial(job.stages.tick, "reading", part=(0.3, 1.0)),
        ),
        inputs=job.job_inputs
        | {"analysis": analysis.model_dump(mode="json"), "prompts": job.prompts.probe.model_dump(mode="json")},
        shared=True,
    )
    if warning := doubt(found):
        job.emit(warning)
    return found


def training(job: Prepared, arm: Strategy, maps: Mapping[AnalysisSpec, RobustnessResult]) -> TrainingResult:
    """Turn the arm's strategy into learning rates, train with them and store what was trained.

    A run that was interrupted goes on from its newest checkpoint, which is gone once the result is stored.
    """
    analysis = analysis_of(arm)
    rates = plan(arm, job.modules, maps[analysis] if analysis else None)
    inputs = job.job_inputs | {"plan": rates.model_dump(mode="json"), "safeguards": _safeguards(job, arm)}
    key = f"jobs/{job.assignment.job_id}/checkpoints/{arm.label}-{digest(inputs)}.safetensors"
    checkpoints = Checkpoints(job.store, key)
    try:
        result = job.stages.stored(
            "training", TrainingResult, lambda: _train(job, arm, rates, checkpoints), inputs=inputs, arm=arm.label
        )
    except TrainingFailed:  # it would fail again
        checkpoints.remove()
        raise
    checkpoints.remove()
    return result


def report(
    job: Prepared,
    evaluations: Sequence[Evaluation],
    maps: Sequence[RobustnessResult],
    trained: Sequence[TrainingResult],
) -> Outcome:
    """Write what the user gets: report, robustness map, raw answers, and the adapter (or the whole model, after a full
    run) of the job's own strategy.

    Those of baselines stay inside: they are there to be compared with, not to be used.
    """
    spec = job.assignment.spec
    rates = spec.training.model_copy(update={"learning_rate": job.learning_rate})
    whole = Report(
        job_id=job.assignment.job_id,
        spec=spec.model_copy(update={"training": rates}),
        model=job.base.identity,
        dataset=job.assignment.dataset,
        data=job.data.summary,
        prompt_set=job.prompts.name,
        figures=tuple(figure for evaluation in evaluations for figure in evaluation.figures),
        categories=tuple(rate for evaluation in evaluations for rate in evaluation.categories),
        agreements=tuple(agreement for evaluation in evaluations for agreement in evaluation.agreements),
        judges=tuple(use for evaluation in evaluations for use in evaluation.judges),
        notes=_notes(evaluations, spec.security),
        robustness=tuple(maps),
        training=tuple(trained),
        software=software(),
        device=_device_name(job.base.device),
    )
    answers = "".join(f"{row.model_dump_json()}\n" for each in evaluations for row in each.answers)
    answered = "".join(f"{row.model_dump_json()}\n" for each in evaluations for row in each.tasks)
    robustness_json = "[" + ",".join(result.model_dump_json() for result in maps) + "]"
    main = trained[0]
    return Outcome(
        artifacts=(
            _put(job, "report.json", whole.model_dump_json(indent=1), _JSON),
            _put(job, "report.html", html(whole), "text/html; charset=utf-8"),
            _put(job, "robustness.json", robustness_json, _JSON),
            _put(job, "answers.jsonl", answers, "application/jsonl"),
            _put(job, "task_answers.jsonl", answered, "application/jsonl"),
            _bundle(job, main),
            *main.adapter,
        )
    )


def _read(store: ArtifactStore, dataset: DatasetRef) -> list[Conversation]:
    return load_rows(store.path(dataset.key), dataset.columns, max_rows=dataset.summary.rows)


def _counted(rows: Sequence[Conversation], stages: Stages) -> Iterator[Conversation]:
    for number, row in enumerate(rows):
        stages.tick("row", number, len(rows))
        yield row


def _notes(evaluations: Sequence[Evaluation], spec: SecuritySpec) -> tuple[str, ...]:
    """What the figures cannot show, for the base model and every arm together."""
    figures = [figure for evaluation in evaluations for figure in evaluation.figures]
    note = power_note(figures, spec.threshold)
    return () if note is None else (note,)


def _safeguards(job: Prepared, arm: Strategy) -> JsonValue:
    return arms.inputs(arm, job.assignment.spec, job.entry, job.prompts)


def _probe(job: Prepared, steps: int, seed: int, enough: Enough) -> AbstractContextManager[PeftModel]:
    """An adapter also where the job trains the modules' own weights: then it takes an adapter's rate."""
    spec = job.assignment.spec.training

    def told(step: TrainedStep, total: int) -> None:
        job.stages.tick("probe step", step.step, total, part=(0.05, 0.3))

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


def _train(job: Prepared, arm: Strategy, rates: LearningPlan, checkpoints: Checkpoints) -> TrainingResult:
    spec = job.assignment.spec.training
    rows = job.training_rows(arm)
    # Asked of the base model, so before anything is put on it.
    tick = partial(job.stages.tick, "refusal", part=(0.0, 0.05))
    added = arms.added_rows(arm, rows, job.base, job.prompts, spec=job.assignment.spec, tick=tick)

    def on_step(step: TrainedStep, total: int) -> None:
        if loop.logged(step.step, total) or step.validation_loss is not None:
            job.emit(
                Metrics(
                    arm=rates.strategy,
                    step=step.step,
                    total_steps=total,
                    loss=step.loss,
                    learning_rate=step.learning_rate,
                    validation_loss=step.validation_loss,
                )
            )
        job.stages.tick("step", step.step, total, part=(0.05 if added.rows else 0.0, 1.0))

    with _opened(job) as tuned:
        done = loop.train(
            tuned,
            rows + added.rows,
            rates,
            spec,
            learning_rate=job.learning_rate,
            pad_id=job.base.pad_id,
            on_step=on_step,
            objective=objective_of(arm.safeguards),
            validation=job.validation_rows(arm),
            checkpoints=checkpoints,
        )
        projections = _projected(job, arm, tuned)
        stored = _store_trained(job, tuned, arm)
    return TrainingResult(
        arm=rates.strategy,
        plan=rates,
        learning_rate=job.learning_rate,
        steps=done.steps,
        curve=done.curve,
        trainable_parameters=done.trainable_parameters,
        seconds=done.seconds,
        adapter=stored,
        validation=done.validation,
        best_step=done.best_step,
        stopped_early=done.stopped_early,
        safety_rows=len(added.rows),
        distinct_safety_rows=added.distinct,
        projections=projections,
    )


def _projected(job: Prepared, arm: Strategy, tuned: PeftModel | PreTrainedModel) -> tuple[Projection, ...]:
    spec = arm.safeguards.project_to_safe
    if spec is None or not isinstance(tuned, PeftModel):  # core.catalog.check_arms refuses it for a full run
        return ()
    return project(tuned, job.modules, job.base.folder, arms.unaligned_folder(job.entry), spec)


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


def _store_trained(job: Prepared, tuned: PeftModel | PreTrainedModel, arm: Strategy) -> tuple[StoredFile, ...]:
    name = _trained_name(job)
    with job.store.staging() as folder:  # only now: staging is swept of what is a day old, and training may take longer
        if isinstance(tuned, PeftModel):
            files = adapter.save(tuned, job.base, folder)
        else:
            files = full.save(tuned, job.base, job.modules, folder)
        if note := arms.serving_note(arm, job.base):
            (folder / "README.md").write_text(note, encoding="utf-8")
            files = (*files, folder / "README.md")
        return tuple(
            job.store.adopt(
                f"{_attempt(job)}/{name}s/{arm.label}/{path.name}",
                path,
                name=f"{name}/{path.name}",
                media_type=_JSON if path.suffix == ".json" else "application/octet-stream",
            )
            for path in files
        )


def _trained_name(job: Prepared) -> str:
    """What a job trains, as its files are called."""
    return "model" if job.assignment.spec.training.method == "full" else "adapter"


def _attempt(job: Prepared) -> str:
    return f"jobs/{job.assignment.job_id}/attempts/{job.assignment.attempt}"


def _put(job: Prepared, name: str, text: str, media_type: str) -> StoredFile:
    return job.store.put(f"{_attempt(job)}/{name}", text.encode(), name=name, media_type=media_type)


def _bundle(job: Prepared, trained: TrainingResult) -> StoredFile:
    name = _trained_name(job)
    files = {file.name.removeprefix(f"{name}/"): job.store.path(file.key) for file in trained.adapter}
    with job.store.staging() as folder:
        archive = folder / f"{name}.tar"
        write_tar(archive, files)
        return job.store.adopt(
            f"{_attempt(job)}/{archive.name}", archive, name=archive.name, media_type="application/x-tar"
        )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
