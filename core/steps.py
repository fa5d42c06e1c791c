"""The steps of a job: each takes what is prepared, calls one stage, and hands on a frozen result.

Here the stages meet that may not know each other: the robustness analysis gets its probe run from training.
Not here: their order (core.pipeline), what they compute (their folders).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from pydantic import JsonValue
from torch import nn

from core.data import Conversation
from core.data import load as load_rows
from core.data.batches import EncodedDataset, encode_all, masked_sample, split
from core.data.template import end_of_turn
from core.errors import TrainingFailed
from core.lm import adapter
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import Module
from core.provenance import software
from core.quality import loss as quality
from core.reports.render import html
from core.robustness.analyse import analyse
from core.security import evaluate as security
from core.spec.analysis import AnalysisSpec
from core.spec.events import Figures, Metrics, Warned
from core.spec.job import BASE_ARM, Assignment, DatasetRef
from core.spec.models import BaseModelEntry
from core.spec.results import (
    DataResult,
    Evaluation,
    Outcome,
    Report,
    RobustnessResult,
    StoredFile,
    TrainedStep,
    TrainingResult,
)
from core.spec.security import PromptSet
from core.spec.strategy import MlLrStrategy, Strategy, UniformStrategy
from core.spec.training import LearningPlan, TrainingSpec
from core.stages import Emit, Stages
from core.storage import ArtifactStore
from core.storage.bundle import write_tar
from core.training import loop
from core.training.strategies import plan

_MOST_HELD_OUT = 200
_ANALYSED_ROWS = 32
_JSON = "application/json"


@dataclass(frozen=True)
class Rows:
    """Rows ready to be trained and scored on."""

    training: EncodedDataset
    validation: EncodedDataset
    summary: DataResult


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
        """The standard rate: the job's, or else the base model's own."""
        return self.assignment.spec.training.learning_rate or self.entry.learning_rate

    @property
    def inputs(self) -> dict[str, JsonValue]:
        """What every result hangs on."""
        return {"model": self.base.identity.sha256, "device": self.base.device.type, "software": dict(software())}

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


def load_base(entry: BaseModelEntry, device: str) -> BaseModel:
    """The base model. Its answers end where a trained turn does, also where its configuration names another token."""
    base = load(entry, choose_device(device))
    base.stop_also_at(end_of_turn(base.tokenizer))
    return base


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
    return Rows(training, validation, summary)


def before(job: Prepared) -> Evaluation:
    """The base model's figures. Its security figures hang on no job: they are measured once and shared."""
    spec = job.assignment.spec.security
    found = job.stages.stored(
        "before",
        Evaluation,
        lambda: _security(job, job.base.model, BASE_ARM, part=(0.0, 1.0)),
        inputs=job.inputs | {"security": spec.model_dump(mode="json"), "prompts": job.prompts.model_dump(mode="json")},
        shared=True,
    )
    # The stage is over, and what follows is this job's alone: it takes no share of the progress.
    whole = _joined(found, _task(job, job.base.model, BASE_ARM, part=(0.0, 0.0)))
    job.emit(Figures(figures=whole.figures))
    return whole


def robustness(job: Prepared, analysis: AnalysisSpec) -> RobustnessResult:
    """Measure which modules are robust on this job's data."""
    found = job.stages.stored(
        "robustness",
        RobustnessResult,
        lambda: analyse(
            job.base,
            job.modules,
            analysis,
            job.prompts.probe,
            job.data.training.rows[:_ANALYSED_ROWS],
            train_probe=partial(_probe, job),
            prepared=partial(job.stages.tick, "probe prompt", part=(0.0, 0.05)),
            tick=partial(job.stages.tick, "reading", part=(0.3, 1.0)),
        ),
        inputs=job.job_inputs
        | {"analysis": analysis.model_dump(mode="json"), "prompts": job.prompts.probe.model_dump(mode="json")},
    )
    if not found.usable:
        job.emit(
            Warned(
                code="no_security_feature",
                message="The base model shows no separable security feature, so every module gets the standard rate.",
            )
        )
    elif found.trace[0].drift <= 0:
        job.emit(
            Warned(
                code="no_drift",
                message="Moving every module at once did no harm to the security proxy, so the map tells no module "
                "from another and all of them get the standard rate, as in ordinary fine-tuning. A longer probe "
                "(strategy.analysis.perturbation.steps) may show more.",
            )
        )
    return found


def training(job: Prepared, arm: Strategy, maps: Mapping[AnalysisSpec, RobustnessResult]) -> TrainingResult:
    """Turn the arm's strategy into learning rates, train its adapter and store it."""
    robust = maps[arm.analysis].robust if isinstance(arm, MlLrStrategy) else ()
    rates = plan(arm, [module.name for module in job.modules], robust)
    return job.stages.stored(
        "training",
        TrainingResult,
        lambda: _train(job, rates),
        inputs=job.job_inputs | {"plan": rates.model_dump(mode="json")},
        arm=arm.label,
    )


def after(job: Prepared, trained: TrainingResult) -> Evaluation:
    """One arm's figures, measured on the adapter as it was stored."""
    folder = job.store.path(trained.adapter[0].key).parent
    spec = job.assignment.spec

    def measure() -> Evaluation:
        with adapter.loaded(job.base, folder) as tuned:
            return _joined(
                _security(job, tuned, trained.arm, part=(0.0, 0.8)), _task(job, tuned, trained.arm, part=(0.8, 1.0))
            )

    found = job.stages.stored(
        "after",
        Evaluation,
        measure,
        inputs=job.job_inputs
        | {
            "adapter": [file.sha256 for file in trained.adapter],
            "security": spec.security.model_dump(mode="json"),
            "quality": spec.quality.model_dump(mode="json"),
            "prompts": job.prompts.evaluation.model_dump(mode="json"),
        },
        arm=trained.arm,
    )
    job.emit(Figures(figures=found.figures))
    return found


def report(
    job: Prepared,
    evaluations: Sequence[Evaluation],
    maps: Sequence[RobustnessResult],
    trained: Sequence[TrainingResult],
) -> Outcome:
    """Write what the user gets: report, robustness map, raw answers, and the adapter of the job's own strategy.

    Adapters of baselines stay inside: they are there to be compared with, not to be used.
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


def _security(job: Prepared, model: nn.Module, arm: str, *, part: tuple[float, float]) -> Evaluation:
    spec = job.assignment.spec.security
    tick = partial(job.stages.tick, "answer", part=part)
    answers = security.evaluate(job.base, model, job.prompts, spec, arm=arm, tick=tick)
    return Evaluation(figures=security.figures(arm, answers, spec), answers=answers)


def _task(job: Prepared, model: nn.Module, arm: str, *, part: tuple[float, float]) -> Evaluation:
    tick = partial(job.stages.tick, "validation row", part=part)
    return Evaluation(
        figures=(quality.evaluate(job.base, model, job.data.validation.rows, arm=arm, tick=tick),), answers=()
    )


def _joined(one: Evaluation, other: Evaluation) -> Evaluation:
    return Evaluation(figures=one.figures + other.figures, answers=one.answers + other.answers)


@contextmanager
def _probe(job: Prepared, steps: int, seed: int) -> Iterator[PeftModel]:
    """A throw-away adapter, tuned for a few steps as the job will be: every module at the full standard rate."""
    whole = loop.total_steps(job.assignment.spec.training, len(job.data.training.rows))
    spec = job.assignment.spec.training.model_copy(
        update={"steps": min(steps, whole), "epochs": None, "seed": seed, "schedule": "constant"}
    )

    def told(step: TrainedStep, total: int) -> None:
        job.stages.tick("probe step", step.step, total, part=(0.05, 0.3))

    rates = plan(UniformStrategy(), [module.name for module in job.modules], ())
    with adapter.attached(job.base.model, job.modules, spec.lora, seed=seed) as tuned:
        _loop(job, tuned, rates, spec, on_step=told)
        yield tuned


def _train(job: Prepared, rates: LearningPlan) -> TrainingResult:
    spec = job.assignment.spec.training

    def on_step(step: TrainedStep, total: int) -> None:
        job.emit(
            Metrics(
                arm=rates.strategy,
                step=step.step,
                total_steps=total,
                loss=step.loss,
                learning_rate=step.learning_rate,
            )
        )
        job.stages.tick("step", step.step, total)

    with adapter.attached(job.base.model, job.modules, spec.lora, seed=spec.seed) as tuned:
        done = _loop(job, tuned, rates, spec, on_step=on_step)
        stored = _store_adapter(job, tuned, rates.strategy)
    return TrainingResult(
        arm=rates.strategy,
        plan=rates,
        learning_rate=job.learning_rate,
        steps=done.steps,
        curve=done.curve,
        trainable_parameters=done.trainable_parameters,
        seconds=done.seconds,
        adapter=stored,
    )


def _store_adapter(job: Prepared, tuned: PeftModel, arm: str) -> tuple[StoredFile, ...]:
    with job.store.staging() as folder:  # only now: staging is swept of what is a day old, and training may take longer
        return tuple(
            job.store.adopt(
                f"{_attempt(job)}/adapters/{arm}/{path.name}",
                path,
                name=f"adapter/{path.name}",
                media_type=_JSON if path.suffix == ".json" else "application/octet-stream",
            )
            for path in adapter.save(tuned, job.base, folder)
        )


def _loop(
    job: Prepared, tuned: PeftModel, rates: LearningPlan, spec: TrainingSpec, *, on_step: loop.OnStep
) -> loop.Trained:
    return loop.train(
        tuned,
        job.data.training.rows,
        rates,
        spec,
        learning_rate=job.learning_rate,
        pad_id=job.base.pad_id,
        on_step=on_step,
    )


def _attempt(job: Prepared) -> str:
    return f"jobs/{job.assignment.job_id}/attempts/{job.assignment.attempt}"


def _put(job: Prepared, name: str, text: str, media_type: str) -> StoredFile:
    return job.store.put(f"{_attempt(job)}/{name}", text.encode(), name=name, media_type=media_type)


def _bundle(job: Prepared, trained: TrainingResult) -> StoredFile:
    files = {file.name.removeprefix("adapter/"): job.store.path(file.key) for file in trained.adapter}
    with job.store.staging() as folder:
        write_tar(folder / "adapter.tar", files)
        key = f"{_attempt(job)}/adapter.tar"
        return job.store.adopt(key, folder / "adapter.tar", name="adapter.tar", media_type="application/x-tar")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
