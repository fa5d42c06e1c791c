"""The training stage: trains one run of the job and stores its adapter, or the whole model after full fine-tuning.

Not here: learning rates (core.training.strategies), the training loop (core.training.loop), what safeguards do
(core.safeguards).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from core import safeguards
from core.data.encoded import Encoded
from core.data.template import encode_all
from core.errors import TrainingFailed
from core.lm import adapter, full
from core.pipeline.cache import code_of, digest
from core.pipeline.context import JobContext
from core.robustness.refusals import BaseRefusals
from core.safeguards import SafeguardContext, TrainedContext
from core.schemas.analysis import AnalysisSpec
from core.schemas.events import Metrics
from core.schemas.results import SafeguardEffect, StoredFile, TrainedStep, TrainingResult
from core.schemas.robustness import RobustnessResult
from core.schemas.strategy import Strategy, analysis_of
from core.schemas.training import LearningPlan
from core.storage import check_digest
from core.training import loop
from core.training.checkpoint import Checkpoints
from core.training.strategies import plan

_JSON = "application/json"
_REWRITING, _COLLECTING = 0.3, 0.05
"""Parts of the stage's progress for what the base model writes before training: other answers, and refusals."""


def train_run(job: JobContext, run: Strategy, maps: Mapping[AnalysisSpec, RobustnessResult]) -> TrainingResult:
    """Turn the run's strategy into learning rates, train with them and store the result.

    An interrupted run resumes from its newest checkpoint, which is removed once the result is stored.

    Raises:
        TrainingFailed: see `core.training.loop.train`; or a safeguard has no rows to add, or no refusals to measure.
    """
    analysis = analysis_of(run)
    rates = plan(run, job.modules, maps[analysis] if analysis else None)
    implementations = [type(safeguard) for safeguard in safeguards.safeguards_of(run)]
    inputs = job.job_inputs | {
        "repaired": [file.sha256 for file in job.assignment.repaired],
        "code": code_of(
            loop.train, adapter.save, full.save, encode_all, BaseRefusals, *implementations, caller=__name__
        ),
        "plan": rates.model_dump(mode="json"),
        "safeguards": safeguards.inputs(run, job.safeguard_context),
    }
    key = f"jobs/{job.assignment.job_id}/checkpoints/{run.label}-{digest(inputs)}.safetensors"
    checkpoints = Checkpoints(job.store, key)
    try:
        result = job.stages.run_cached(
            "training", TrainingResult, lambda: _train(job, run, rates, checkpoints), inputs=inputs, run=run.label
        )
    except TrainingFailed:  # it would fail again
        checkpoints.remove()
        raise
    checkpoints.remove()
    return result


def _train(job: JobContext, run: Strategy, rates: LearningPlan, checkpoints: Checkpoints) -> TrainingResult:
    spec = job.assignment.spec.training_of(run)
    # The base model writes answers for these rows, so this is done before an adapter is attached to it.
    prepared = _prepare(job, run)
    refusal_nll = _refusal_nll(job, run)  # from the base model too

    def on_step(step: TrainedStep, total: int) -> None:
        if loop.is_logged(step.step, total) or step.validation_loss is not None:
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
        job.stages.report_progress("step", step.step, total, part=(prepared.progress, 1.0))

    with _trainable(job) as (tuned, originals):
        if spec.steps == 0:
            trained = _untrained(tuned)
        else:
            trained = loop.train(
                tuned,
                prepared.rows,
                rates,
                spec,
                learning_rate=job.learning_rate,
                pad_id=job.base.pad_id,
                on_step=on_step,
                objective=prepared.objective,
                validation=job.validation_rows(run),
                refusal_nll=refusal_nll,
                end_weights=safeguards.end_weights(run),
                checkpoints=checkpoints,
                meter=job.stages.meter,
            )
        context = TrainedContext(
            **vars(prepared.context), trained=trained, originals=originals, refusal_nll=refusal_nll
        )
        effects = (*prepared.effects, *safeguards.after_training(run, context, tuned))
        stored = _store(job, tuned, run)
    return TrainingResult(
        run=rates.strategy,
        plan=rates,
        learning_rate=job.learning_rate,
        steps=trained.steps,
        curve=trained.curve,
        trainable_parameters=trained.trainable_parameters,
        seconds=trained.seconds,
        adapter=stored,
        validation=trained.validation,
        security=trained.security,
        best_step=trained.best_step,
        end_step=trained.end_step,
        stopped_early=trained.stopped_early,
        safeguards=effects,
    )


@dataclass(frozen=True)
class _Prepared:
    """What the safeguards of a run make of the job's rows and of the loss."""

    context: SafeguardContext
    rows: Sequence[Encoded]
    objective: loop.Objective
    effects: tuple[SafeguardEffect, ...]
    progress: float
    """The part of the stage's progress that this took."""


def _prepare(job: JobContext, run: Strategy) -> _Prepared:
    context, report = job.safeguard_context, job.stages.report_progress
    rewriting = partial(report, "rewritten answer", part=(0.0, _REWRITING))
    texts, rewritten = safeguards.rewrite_rows(run, context, job.data.originals, rewriting)
    texts = safeguards.training_rows(run, texts)
    context, rows = replace(context, rows=texts), job.encode_training(texts)
    begun = _REWRITING if rewritten else 0.0
    collecting = partial(report, "refusal", part=(begun, begun + _COLLECTING))
    extra = safeguards.extra_rows(run, context, rows, collecting)
    objective, changed = safeguards.objective(run, context, collecting)
    added = tuple(each.effect for each in extra)
    return _Prepared(
        context,
        [*rows, *(row for each in extra for row in each.rows)],
        objective,
        (*rewritten, *added, *changed),
        begun + (_COLLECTING if added or changed else 0.0),
    )


def _refusal_nll(job: JobContext, run: Strategy) -> loop.RefusalNll | None:
    """What measures refusals during and after training; None if the base model answers no probe prompt.

    Raises:
        TrainingFailed: code `no_refusals_to_measure`; a safeguard of the run needs them.
    """
    if watched := job.watched_refusals:
        return watched.nll
    if needing := [each.name for each in run.safeguards if each.needs_refusals]:
        raise TrainingFailed(
            f"{needing[0]} measures how the base model's refusals change, and the base model answers no harmful probe "
            "prompt. Choose a prompt set that it answers, or remove the safeguard.",
            code="no_refusals_to_measure",
            param=f"strategy.safeguards.{needing[0]}",
        )
    return None


@contextmanager
def _trainable(job: JobContext) -> Iterator[tuple[PeftModel | PreTrainedModel, full.Originals]]:
    """The base model with a new adapter, or with its modules' own weights trainable for full fine-tuning; and the base
    model's values of these weights, none for an adapter. In a repair, with the weights to begin with.

    Raises:
        InvalidInput: code `file_changed`; the weights to begin with have changed on disk.
    """
    spec, folder = job.assignment.spec.training, _repaired_folder(job)
    if spec.method == "full":
        begun = full.reopened(job.base, job.modules, folder) if folder else full.opened(job.base.model, job.modules)
        with begun as originals:
            yield job.base.model, originals
    else:
        new = adapter.attached(job.base.model, job.modules, spec.lora, seed=spec.seed)
        with adapter.reopened(job.base, folder) if folder else new as tuned:
            yield tuned, {}


def _repaired_folder(job: JobContext) -> Path | None:
    """The folder of the adapter or model that the job repairs; None if it repairs none."""
    paths: list[Path] = []
    for file in job.assignment.repaired:
        paths.append(job.store.path(file.key))
        check_digest(paths[-1], file.sha256)
    return paths[0].parent if paths else None


def _untrained(tuned: PeftModel | PreTrainedModel) -> loop.Trained:
    """What a repair without steps has trained: nothing."""
    tuned.eval()
    trainable = sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)
    return loop.Trained(steps=0, curve=(), trainable_parameters=trainable, seconds=0.0)


def _store(job: JobContext, tuned: PeftModel | PreTrainedModel, run: Strategy) -> tuple[StoredFile, ...]:
    name = job.trained_name
    # Staging folders are removed once they are a day old and training can take longer, so this one is opened last.
    with job.store.staging() as folder:
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
