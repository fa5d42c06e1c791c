"""Tasks of lm-evaluation-harness on the model that is in memory already; only where the harness is installed.

Covers: asking the harness, what goes wrong in it. The
harness writes its prompts with the tokenizer's own chat template, as every other prompt here is written. It brings its
own data sets, and on the whole fetches them from the model hub. Not here: what its results say
(core.quality.harness_scores); tasks that run code a model has written, which it refuses.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from torch import nn
from torch.utils.hooks import RemovableHandle

from core.errors import InvalidInput, Unavailable
from core.lm.load import BaseModel
from core.lm.packing import max_batch_tokens
from core.quality.answers import Scored
from core.quality.harness_scores import scored
from core.quality.tasks import check_harness
from core.schemas.progress import OnProgress
from core.schemas.quality import LmEval

_MOST_ROWS = 16
_LONG_PROMPT = 1024
_UNLIMITED = 200
"""Taken for the number of questions where a task has no limit: the harness alone knows it."""


class _TaskManager(Protocol):
    """The harness's own list of tasks."""

    all_tasks: Sequence[str]

    def load(self, task_list: Sequence[str]) -> Mapping[str, Mapping[str, object]]: ...


class _Harness(Protocol):
    """What is used of `lm_eval`, which need not be installed."""

    def simple_evaluate(self, model: object, **options: object) -> Mapping[str, object] | None: ...


class _Models(Protocol):
    """What is used of `lm_eval.models.huggingface`."""

    def HFLM(self, **options: object) -> object: ...


class _Tasks(Protocol):
    """What is used of `lm_eval.tasks`."""

    def TaskManager(self, **options: object) -> _TaskManager: ...


def about(task: LmEval) -> int:
    """About how many questions it is, for a progress bar."""
    return task.limit or _UNLIMITED


def lm_eval_task(
    base: BaseModel,
    model: nn.Module,
    task: LmEval,
    *,
    run: str,
    on_progress: OnProgress,
    system_prompt: str | None = None,
    own_tasks: Path | None = None,
) -> Scored:
    """Every figure that the harness gives for one task or group, its standard errors as 95 % intervals.

    The suite is `lm_eval:TASK`, the judge the harness's name of the metric and its filter, such as `acc,none`. The
    questions come with it where the task has a single metric: those of two could not be told apart.

    Args:
        tick: called at every forward pass with (prompts read, about how many there are).
        own_tasks: a folder of task files that takes the place of the harness's own tasks.

    Raises:
        InvalidInput: code `unknown_lm_eval_task`, or `lm_eval_refused` where the harness will not run it so.
        Unavailable: code `lm_eval_missing`, or `lm_eval_failed` where its data or modules cannot be had.
    """
    check_harness()
    manager = _manager(own_tasks)
    if task.task not in manager.all_tasks:
        raise InvalidInput(
            f"lm-evaluation-harness has no task {task.task!r}: `lm_eval ls tasks` on a worker shows those it has.",
            code="unknown_lm_eval_task",
            param="quality.tasks",
        )
    harness = cast(_Harness, import_module("lm_eval"))
    loaded = _loaded(manager, task.task)
    with _watched(base, on_progress, about(task)), _one_process(), _explained(task.task):
        found = harness.simple_evaluate(
            _wrapped(base, model),
            tasks=loaded,
            num_fewshot=task.shots,
            limit=task.limit,
            bootstrap_iters=1000,
            apply_chat_template=True,
            system_instruction=system_prompt,
            task_manager=manager,
        )
    return scored(task.task, found or {}, run)


@cache
def _manager(own_tasks: Path | None) -> _TaskManager:
    """The harness's list of tasks; to read it takes some ten seconds."""
    tasks = cast(_Tasks, import_module("lm_eval.tasks"))
    return tasks.TaskManager(include_path=own_tasks and str(own_tasks), include_defaults=own_tasks is None)


def _loaded(manager: _TaskManager, name: str) -> list[object]:
    """The task with its data, the group, or all tasks of a tag."""
    with _explained(name):
        try:
            found = manager.load([name])
        except RuntimeError as error:  # a data set that is a program, which is not run
            raise ImportError(str(error)) from error
    return [found["groups"][name]] if name in found["groups"] else list(found["tasks"].values())


def _wrapped(base: BaseModel, model: nn.Module) -> object:
    """The model as the harness takes it: the same weights, and a copy of the tokenizer, which it changes."""
    models = cast(_Models, import_module("lm_eval.models.huggingface"))
    rows = max(1, min(_MOST_ROWS, max_batch_tokens(base) // _LONG_PROMPT))
    return models.HFLM(pretrained=model, tokenizer=deepcopy(base.tokenizer), batch_size=rows)


@contextmanager
def _watched(base: BaseModel, on_progress: OnProgress, total: int) -> Generator[None]:
    """Lets the caller hear of every forward pass, by a hook on the embedding, which all of them go through.

    How many prompts there are, only the harness knows: the last of them is told when it is done.
    """
    read = 0

    def heard(_module: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal read
        shape = getattr(inputs[0], "shape", (0, 0)) if inputs else (0, 0)
        read += int(shape[0]) if int(shape[-1]) > 1 else 0  # one token at a time: an answer goes on
        on_progress(min(read, total - 1), total)

    embedding = base.model.get_input_embeddings()
    handle: RemovableHandle = embedding.register_forward_pre_hook(heard)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _one_process() -> Generator[None]:
    """The harness bootstraps some metrics in forked processes, which a process with threads and a GPU must not have."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


@contextmanager
def _explained(task: str) -> Generator[None]:
    """Errors of the harness as ours."""
    try:
        yield
    except (OSError, ImportError) as error:
        raise Unavailable(
            f"lm-evaluation-harness cannot run {task!r} here, as its data or a module it needs cannot be had: {error}",
            code="lm_eval_failed",
            param="quality.tasks",
        ) from error
    except (ValueError, KeyError) as error:
        raise InvalidInput(
            f"lm-evaluation-harness will not run {task!r}: {error}", code="lm_eval_refused", param="quality.tasks"
        ) from error
