"""Prepares a job: loads its base model, checks that the job can be done, and tokenises its rows.

Not here: reading rows, prompt sets and benchmarks (core.pipeline.inputs), screening (core.pipeline.screen), the
order of things (core.pipeline.run).
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core import safeguards
from core.data import Conversation
from core.data.preview import masked_sample
from core.data.template import end_of_turn
from core.errors import TrainingFailed
from core.judges.opening import check_judges
from core.lm.load import BaseModel, choose_device, load
from core.lm.vllm_engine import check_vllm
from core.pipeline.advise import advise
from core.pipeline.context import Rows, encode_for
from core.pipeline.inputs import hold_out
from core.pipeline.precision import choose_for_job
from core.pipeline.stages import Emit, Stages
from core.quality import tasks
from core.safeguards import SafeguardContext
from core.schemas.events import Warned
from core.schemas.job import Assignment
from core.schemas.models import BaseModelEntry
from core.schemas.strategy import analysis_of
from core.schemas.training import TrainingSpec
from core.storage import ArtifactStore
from core.training.strategies import plan


def load_base(entry: BaseModelEntry, device: str, stages: Stages, training: TrainingSpec | None = None) -> BaseModel:
    """The base model, with its weights in the precision that the order names, or else in that of the job.

    Generation stops at the end-of-turn token of the chat template as well as at the tokens that the model's own
    configuration names.
    """
    training, started = training or TrainingSpec(), time.monotonic()
    base = load(
        entry,
        choose_device(device),
        precision=training.precision,
        four_bit=training.method == "qlora",
        choose_precision=partial(choose_for_job, stages),
    )
    base.stop_also_at(end_of_turn(base.tokenizer))
    stages.meter.add("load", calls=1, amount=1, seconds=time.monotonic() - started, precision=base.weights)
    return base


def check_job(assignment: Assignment, context: SafeguardContext, emit: Emit, vllm_python: Path | None = None) -> None:
    """Reject a job that cannot be done, before anything is computed, and warn of what was changed to load its model.

    Raises:
        SecureTuneError: a module, layer, safeguard, judge, task or engine does not fit the job's base model or server.
    """
    spec, base = assignment.spec, context.base
    for run in spec.runs:
        if analysis_of(run) is None:
            plan(run, context.modules, None)
        safeguards.check(run, context)
    check_judges(spec.security.judges, {judge.name: judge for judge in assignment.judges})
    tasks.check_tasks(spec.quality, assignment.benchmarks)
    if spec.security.engine == "vllm":
        check_vllm(vllm_python, base)
    for warning in base.warnings:
        emit(warning)
    if base.identity.chat_template == "plain":
        emit(
            Warned(
                code="plain_chat_template",
                message=f"The base model {context.entry.name!r} has no chat template, so securetune's plain template "
                "is used, as the server's list of models allows. All figures apply to this template only. It is saved "
                "with the trained model: serve the model with it.",
            )
        )


def encode_rows(
    assignment: Assignment, rows: Sequence[Conversation], store: ArtifactStore, base: BaseModel, stages: Stages
) -> Rows:
    """Tokenise the rows with their labels. Without a validation dataset, some rows are held out for validation."""
    spec = assignment.spec.training
    rows, held_out = hold_out(assignment, rows, store)
    limit = min(spec.max_length, base.context)
    started = time.monotonic()
    training = encode_for(spec, stages.with_progress(rows), base)
    tokens = sum(len(row.input_ids) for row in training.rows)
    stages.meter.add("tokenise", calls=len(rows), amount=tokens, seconds=time.monotonic() - started)
    try:
        validation = encode_for(spec, held_out, base)
    except TrainingFailed as error:
        raise TrainingFailed(f"Of the validation rows: {error.message}", code=error.code, param=error.param) from error
    if dropped := training.dropped + validation.dropped:
        stages.emit(
            Warned(
                code="prompts_too_long",
                message=f"{dropped} rows are left out because their prompt has {limit} tokens or more. Raise "
                "max_length to keep them, up to the model's context length.",
            )
        )
    for warning in advise(spec, rows, held_out, training):
        stages.emit(warning)
    return Rows(training, validation, masked_sample(training.rows[0], base.tokenizer), held_out, rows)
