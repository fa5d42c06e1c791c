"""Runs tasks of lm-evaluation-harness on the model that is already in memory, if the harness is installed.

Covers: calling the harness, its errors. The harness writes prompts with the tokenizer's chat template, like every other
prompt here, and usually fetches its data sets from the model hub. Not here: converting its results
(core.quality.harness_scores); tasks that execute code written by a model, which the harness rejects.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

from torch import nn
from torch.utils.hooks import RemovableHandle

from core.errors import InvalidInput, Unavailable
from core.lm.load import BaseModel
from core.lm.packing import max_batch_tokens
from core.quality.answers import TaskScores
from core.quality.harness_scores import convert_results
from core.quality.tasks import check_harness, estimate_size
from core.schemas.progress import OnProgress
from core.schemas.quality import LmEval

_MOST_ROWS = 16
_LONG_PROMPT = 1024


class _TaskManager(Protocol):
    """The harness's list of tasks."""

    all_tasks: Sequence[str]

    def load(self, task_list: Sequence[str]) -> Mapping[str, Mapping[str, object]]: ...


def run_lm_eval(
    base: BaseModel,
    model: nn.Module,
    task: LmEval,
    *,
    run: str,
    on_progress: OnProgress,
    system_prompt: str | None = None,
    own_tasks: Path | None = None,
) -> TaskScores:
    """Run one task or group and return its figures, with 95 % intervals from the standard errors.

    The suite is `lm_eval:TASK`, the judge the harness's name of the metric and its filter, such as `acc,none`. The
    questions are included if the task has a single metric: those of two could not be distinguished.

    Args:
        on_progress: called at every forward pass with (prompts read, estimated total).
        own_tasks: a folder of task files that replaces the harness's own tasks.

    Raises:
        InvalidInput: code `unknown_lm_eval_task`, or `lm_eval_refused` if the harness rejects it.
        Unavailable: code `lm_eval_missing`, or `lm_eval_failed` if its data or modules are missing.
    """
    check_harness()
    manager = _manager(own_tasks)
    if task.task not in manager.all_tasks:
        raise InvalidInput(
            f"lm-evaluation-harness has no task {task.task!r}: run `lm_eval ls tasks` on a worker to list its tasks.",
            code="unknown_lm_eval_task",
            param="quality.tasks",
        )
    loaded = _load_task(manager, task.task)
    with _report_progress(base, on_progress, estimate_size(task)), _single_process(), _translate_errors(task.task):
        output = import_module("lm_eval").simple_evaluate(
            _wrap_model(base, model),
            tasks=loaded,
            num_fewshot=task.shots,
            limit=task.limit,
            bootstrap_iters=1000,
            apply_chat_template=True,
            system_instruction=system_prompt,
            task_manager=manager,
        )
    return convert_results(task.task, output or {}, run)


@cache
def _manager(own_tasks: Path | None) -> _TaskManager:
    """Load the harness's list of tasks, which takes about ten seconds."""
    create = import_module("lm_eval.tasks").TaskManager
    return create(include_path=own_tasks and str(own_tasks), include_defaults=own_tasks is None)


def _load_task(manager: _TaskManager, name: str) -> list[object]:
    """Load the task with its data, the group, or all tasks of a tag."""
    with _translate_errors(name):
        try:
            found = manager.load([name])
        except RuntimeError as error:  # a data set with a loading script, which is not executed
            raise ImportError(str(error)) from error
    return [found["groups"][name]] if name in found["groups"] else list(found["tasks"].values())


def _wrap_model(base: BaseModel, model: nn.Module) -> object:
    """Wrap the model for the harness: the same weights, and a copy of the tokenizer, which the harness changes."""
    rows = max(1, min(_MOST_ROWS, max_batch_tokens(base) // _LONG_PROMPT))
    return import_module("lm_eval.models.huggingface").HFLM(
        pretrained=model, tokenizer=deepcopy(base.tokenizer), batch_size=base.limit_batch(rows)
    )


@contextmanager
def _report_progress(base: BaseModel, on_progress: OnProgress, total: int) -> Generator[None]:
    """Report every forward pass, by a hook on the embedding.

    Only the harness knows the number of prompts, so the last one is reported when the task is done.
    """
    read = 0

    def count_prompts(_module: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal read
        shape = getattr(inputs[0], "shape", (0, 0)) if inputs else (0, 0)
        read += int(shape[0]) if int(shape[-1]) > 1 else 0  # single tokens continue an answer
        on_progress(min(read, total - 1), total)

    embedding = base.model.get_input_embeddings()
    handle: RemovableHandle = embedding.register_forward_pre_hook(count_prompts)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _single_process() -> Generator[None]:
    """Keep the harness from bootstrapping in forked processes, which are unsafe with threads and a GPU."""
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
def _translate_errors(task: str) -> Generator[None]:
    """Raise the harness's errors as errors with a code."""
    try:
        yield
    except (OSError, ImportError) as error:
        raise Unavailable(
            f"lm-evaluation-harness cannot run {task!r}, because its data or a module is missing: {error}",
            code="lm_eval_failed",
            param="quality.tasks",
        ) from error
    except (ValueError, KeyError) as error:
        raise InvalidInput(
            f"lm-evaluation-harness rejects {task!r}: {error}", code="lm_eval_refused", param="quality.tasks"
        ) from error
