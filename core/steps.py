"""The steps of a job: each takes what is prepared, calls one stage, and hands on a frozen result.

Here the stages meet that may not know each other: the robustness analysis gets its probe run from training.
Not here: their order (core.pipeline), what they compute (their folders).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import JsonValue
from torch import nn
from transformers import PreTrainedModel

from core import arms
from core.data import Conversation
from core.data import load as load_rows
from core.data.batches import EncodedDataset, encode_all, masked_sample, split
from core.data.template import Encoded, end_of_turn
from core.errors import TrainingFailed
from core.lm import adapter, full
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module
from core.provenance import software
from core.quality import loss as quality
from core.reports.render import html
from core.reports.view import nothing_to_protect
from core.robustness.analyse import Enough, analyse
from core.robustness.doubt import doubt
from core.security import evaluate as security
from core.spec.analysis import AnalysisSpec
from core.spec.events import Figures, Metrics, Warned
from core.spec.job import BASE_ARM, Assignment, DatasetRef
from core.spec.models import BaseModelEntry
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
from core.spec.security import PromptSet, SecuritySpec
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


@dataclass(frozen=True)
class Rows:
    """Rows ready to be trained and scored on."""

    training: EncodedDataset
    validation: EncodedDataset
    summary: DataResult
    originals: tuple[Sequence[Conversation], Sequence[Conversation]] = ((), ())
    """Both as they were read; kept only where an arm is trained on other words of them."""


@dataclass(frozen=True)
class Prepared:
    """A job whose model and data are in memory: what every later step works on."""

    assignment: Assignment
    entry: BaseModelEntry
    store: ArtifactStore
    stages: Stages
    emit: Emit
    base: BaseModel
    modules: tuple[Module, ...]
    prompts: PromptSet
    data: Rows

    @property
    def learning_rate(self) -> float:
        """The standard rate: the job's, or else what the base model's own makes it."""
        return self.assignment.spec.training.rate(self.entry.learning_rate)

    @property
    def inputs(self) -> dict[str, JsonValue]:
        """What every result hangs on."""
        return {
            "model": self.base.identity.sha256,
            "device": self.base.device.type,
            "weights": self.base.weights,
            "chat_template": self.base.identity.chat_template,
            "software": dict(software()),
        }

    @property
    def job_inputs(self) -> dict[str, JsonValue]:
        """What a result that has seen the job's data hangs on."""
        assignment = self.assignment
        return self.inputs | {
            "dataset": assignment.dataset.id,
            "validation": assignment.validation.id if assignment.validation else None,
            "training": assignment.spec.training.model_dump(mode="json"),
            "rate": self.learning_rate,
        }


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
    """Find out what is wrong with the arms before anything is computed, and say what is out of the ordinary."""
    arms.check(assignment.spec, entry, base, modules)
    if base.identity.chat_template == "plain":
        emit(
            Warned(
                code="plain_chat_template",
                message=f"Base model {entry.name!r} brings no chat template, so securetune's plain one is used, as "
                "the server's list of models says. All figures hold for it alone. What is handed out carries it: serve "
                "with it.",
            )
        )


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
    return Rows(training, validation, summary, (rows, held_out[:most]) if rewritten else ((), ()))


def before(job: Prepared) -> Evaluation:
    """The base model's figures. Its security figures hang on no job: they are measured once and shared."""
    spec = job.assignment.spec.security
    found = job.stages.stored(
        "before",
        Evaluation,
        lambda: _security(job, job.base.model, BASE_ARM, spec, part=(0.0, 1.0)),
        inputs=job.inputs | {"security": spec.model_dump(mode="json"), "prompts": job.prompts.model_dump(mode="json")},
        shared=True,
    )
    # The stage is over, and what follows is this job's alone: it takes no share of the progress.
    whole = _joined(found, _task(job, job.base.model, BASE_ARM, job.data.validation.rows, part=(0.0, 0.0)))
    job.emit(Figures(figures=whole.figures))
    if figure := nothing_to_protect(whole.figures):
        job.emit(
            Warned(
                code="nothing_to_protect",
                message=f"The base model itself complies with {100 * figure.value:.0f} % of the harmful prompts as "
                f"they are ({figure.n} answers): there is little security that any strategy could keep. Use an aligned "
                "base model, or read the report as that of an ordinary tuning.",
            )
        )
    return whole


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


def after(job: Prepared, arm: Strategy, trained: TrainingResult) -> Evaluation:
    """One arm's figures, measured on what was trained as it was stored, asked as it is to be served."""
    folder = job.store.path(trained.adapter[0].key).parent
    spec = job.assignment.spec
    asked = arms.security_of(arm, spec.security)

    def measure() -> Evaluation:
        with _as_stored(job, folder) as tuned:
            return _joined(
                _security(job, tuned, arm.label, asked, part=(0.0, 0.8)),
                _task(job, tuned, arm.label, _validation_rows(job, arm), part=(0.8, 1.0)),
            )

    found = job.stages.stored(
        "after",
        Evaluation,
        measure,
        inputs=job.job_inputs
        | {
            "adapter": [file.sha256 for file in trained.adapter],
            "security": asked.model_dump(mode="json"),
            "safeguards": _safeguards(job, arm),
            "quality": spec.quality.model_dump(mode="json"),
            "prompts": job.prompts.evaluation.model_dump(mode="json"),
        },
        arm=arm.label,
    )
    job.emit(Figures(figures=found.figures))
    return found


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
        robustness=tuple(maps),
        training=tuple(trained),
        software=software(),
        device=_device_name(job.base.device),
    )
    answers = "".join(f"{row.model_dump_json()}\n" for each in evaluations for row in each.answers)
    robustness_json = "[" + ",".join(result.model_dump_json() for result in maps) + "]"
    main = trained[0]
    return Outcome(
        artifacts=(
            _put(job, "report.json", whole.model_dump_json(indent=1), _JSON),
            _put(job, "report.html", html(whole), "text/html; charset=utf-8"),
            _put(job, "robustness.json", robustness_json, _JSON),
            _put(job, "answers.jsonl", answers, "application/jsonl"),
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


def _safeguards(job: Prepared, arm: Strategy) -> JsonValue:
    return arms.inputs(arm, job.assignment.spec, job.entry, job.prompts)


def _training_rows(job: Prepared, arm: Strategy) -> tuple[Encoded, ...]:
    if arm.safeguards.safe_template is None:
        return job.data.training.rows
    return _encoded_again(job, arms.as_trained(job.data.originals[0]))


def _validation_rows(job: Prepared, arm: Strategy) -> tuple[Encoded, ...]:
    if arm.safeguards.safe_template is None:
        return job.data.validation.rows
    return _encoded_again(job, arms.as_served(arm.safeguards.safe_template, job.data.originals[1]))


def _encoded_again(job: Prepared, rows: Iterator[Conversation]) -> tuple[Encoded, ...]:
    limit = min(job.assignment.spec.training.max_length, job.base.context)
    return encode_all(rows, job.base.tokenizer, max_length=limit).rows


def _security(
    job: Prepared, model: nn.Module, arm: str, spec: SecuritySpec, *, part: tuple[float, float]
) -> Evaluation:
    tick = partial(job.stages.tick, "answer", part=part)
    answers = security.evaluate(job.base, model, job.prompts, spec, arm=arm, tick=tick)
    return Evaluation(figures=security.figures(arm, answers, spec), answers=answers)


def _task(
    job: Prepared, model: nn.Module, arm: str, rows: Sequence[Encoded], *, part: tuple[float, float]
) -> Evaluation:
    tick = partial(job.stages.tick, "validation row", part=part)
    return Evaluation(figures=(quality.evaluate(job.base, model, rows, arm=arm, tick=tick),), answers=())


def _joined(one: Evaluation, other: Evaluation) -> Evaluation:
    return Evaluation(figures=one.figures + other.figures, answers=one.answers + other.answers)


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
    rows = _training_rows(job, arm)
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
            validation=_validation_rows(job, arm),
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


@contextmanager
def _as_stored(job: Prepared, folder: Path) -> Iterator[nn.Module]:
    """The base model with what was trained, read from its files."""
    if job.assignment.spec.training.method == "full":
        with full.loaded(job.base, job.modules, folder) as model:
            yield model
    else:
        with adapter.loaded(job.base, folder) as tuned:
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
