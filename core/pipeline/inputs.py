"""Reads what a job names: its rows, prompt sets and benchmarks, and holds out rows for validation.

It needs no torch, so that a job can be estimated from the same inputs. Not here: tokens (core.pipeline.prepare), the
base model.
"""

from collections.abc import Sequence

from core.attacks.prompts import NamedPromptSets
from core.data import Conversation, files
from core.data import load as load_rows
from core.data.benchmarks import Question
from core.data.benchmarks import read as read_questions
from core.data.order import split
from core.quality import tasks
from core.schemas.job import DatasetRef, JobInputs, PromptFile
from core.schemas.prompts import Use
from core.schemas.quality import MultipleChoice
from core.storage import ArtifactStore, check_digest

_MAX_HELD_OUT = 200


def load_dataset(store: ArtifactStore, dataset: DatasetRef) -> list[Conversation]:
    """All rows of a dataset.

    Raises:
        InvalidInput: code `file_changed`.
    """
    path = store.path(dataset.key)
    check_digest(path, dataset.sha256)
    return load_rows(path, dataset.columns, max_rows=dataset.summary.rows)


def hold_out(
    inputs: JobInputs, rows: Sequence[Conversation], store: ArtifactStore
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """The rows to train on and the validation rows: those of the validation dataset, or some that are held out.

    Raises:
        InvalidDataset: code `too_few_rows`; no row can be held out.
        InvalidInput: code `file_changed`.
    """
    spec = inputs.spec.training
    if inputs.validation is not None:
        held_out: Sequence[Conversation] = load_dataset(store, inputs.validation)
    else:
        rows, held_out = split(rows, share=spec.validation_split, seed=spec.seed, cap=_MAX_HELD_OUT)
    return rows, held_out[: inputs.spec.quality.max_rows]


def load_prompt_sets(inputs: JobInputs, store: ArtifactStore) -> NamedPromptSets:
    """The prompts of the sets that the job names."""
    chosen: dict[Use, PromptFile | None] = {"harmful": inputs.harmful, "safe": inputs.safe}
    return {use: (file.name, files.prompts(file, store, use)) for use, file in chosen.items() if file is not None}


def load_benchmarks(inputs: JobInputs) -> dict[str, tuple[Question, ...]]:
    """The questions of every benchmark that the job is measured on, by the benchmark's name."""
    entries = {entry.name: entry for entry in inputs.benchmarks}
    wanted = tasks.tasks_for(inputs.spec.quality, inputs.benchmarks)
    found: dict[str, tuple[Question, ...]] = {}
    for task in wanted:
        if isinstance(task, MultipleChoice):
            name, source = f"The benchmark {task.benchmark!r}", entries[task.benchmark].source
            path = files.fetch_file(source, name=name, code="benchmark_missing", param="quality.tasks")
            found[task.benchmark] = read_questions(path, most=task.max_questions)
    return found
