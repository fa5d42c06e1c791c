"""Prepares a job: loads its base model, checks that the job can be done, and gets its prompts, questions and rows.

Covers: everything between the screened rows and the first measurement. Not here: screening (core.pipeline.screen), the
order of things (core.pipeline.run).
"""

import time
from collections.abc import Sequence

from core import safeguards
from core.attacks.prompts import NamedPromptSets
from core.data import Conversation, files
from core.data.benchmarks import Question
from core.data.benchmarks import read as read_questions
from core.data.order import split
from core.data.preview import masked_sample
from core.data.template import end_of_turn
from core.errors import TrainingFailed
from core.judges.opening import check_judges
from core.lm.load import BaseModel, choose_device, load
from core.lm.vllm_engine import check_vllm
from core.meter import Meter
from core.pipeline.advise import advise
from core.pipeline.context import Rows, encode_for
from core.pipeline.screen import load_dataset
from core.pipeline.stages import Emit, Stages
from core.quality import tasks
from core.safeguards import SafeguardContext
from core.schemas.events import Warned
from core.schemas.job import Assignment, PromptFile
from core.schemas.models import BaseModelEntry
from core.schemas.prompts import Use
from core.schemas.quality import MultipleChoice
from core.schemas.strategy import analysis_of
from core.schemas.training import TrainingSpec
from core.storage import ArtifactStore
from core.training.strategies import plan

_MAX_HELD_OUT = 200


def load_base(
    entry: BaseModelEntry, device: str, training: TrainingSpec | None = None, meter: Meter | None = None
) -> BaseModel:
    """The base model, with its weights in the precision that the training needs. `meter` counts the work.

    Generation stops at the end-of-turn token of the chat template as well as at the tokens that the model's own
    configuration names.
    """
    training, started = training or TrainingSpec(), time.monotonic()
    base = load(entry, choose_device(device), precision=training.precision, four_bit=training.method == "qlora")
    base.stop_also_at(end_of_turn(base.tokenizer))
    if meter is not None:
        seconds = time.monotonic() - started
        meter.add("load", calls=1, amount=base.identity.parameters, seconds=seconds, precision=base.weights)
    return base


def check_job(assignment: Assignment, context: SafeguardContext, emit: Emit) -> None:
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
        check_vllm(base.device)
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


def load_prompt_sets(assignment: Assignment, store: ArtifactStore) -> NamedPromptSets:
    """The prompts of the sets that the job names."""
    chosen: dict[Use, PromptFile | None] = {"harmful": assignment.harmful, "safe": assignment.safe}
    return {use: (file.name, files.prompts(file, store, use)) for use, file in chosen.items() if file is not None}


def load_benchmarks(assignment: Assignment) -> dict[str, tuple[Question, ...]]:
    """The questions of every benchmark that the job is measured on, by the benchmark's name."""
    entries = {entry.name: entry for entry in assignment.benchmarks}
    wanted = tasks.tasks_for(assignment.spec.quality, assignment.benchmarks)
    found: dict[str, tuple[Question, ...]] = {}
    for task in wanted:
        if isinstance(task, MultipleChoice):
            name, source = f"The benchmark {task.benchmark!r}", entries[task.benchmark].source
            path = files.fetch_file(source, name=name, code="benchmark_missing", param="quality.tasks")
            found[task.benchmark] = read_questions(path, most=task.max_questions)
    return found


def encode_rows(
    assignment: Assignment, rows: Sequence[Conversation], store: ArtifactStore, base: BaseModel, stages: Stages
) -> Rows:
    """Tokenise the rows with their labels. Without a validation dataset, some rows are held out for validation."""
    spec = assignment.spec.training
    if assignment.validation is not None:
        held_out: Sequence[Conversation] = load_dataset(store, assignment.validation)
    else:
        rows, held_out = split(rows, share=spec.validation_split, seed=spec.seed, cap=_MAX_HELD_OUT)
    held_out = held_out[: assignment.spec.quality.max_rows]
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
