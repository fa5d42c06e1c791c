"""One attempt at a job, inside the training process: runs the pipeline, and puts how it ended into one word.

This is a process's edge: whatever goes wrong in here becomes a value, and the traceback goes to the attempt's log.
Importing this file takes seconds (torch, transformers, peft). Not here: pipes (worker.link).
"""

import logging
import os
from collections.abc import Callable

import torch

from core.errors import Interrupted, SecureTuneError
from core.pipeline import run as pipeline
from core.schemas.events import JobError, PipelineEvent
from core.schemas.job import ScreenAssignment
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome
from core.storage import ArtifactStore
from core.storage.store import full, means_full
from worker.protocol import Ending, Failed, Order, Stopped, Succeeded

_log = logging.getLogger(__name__)


def run(order: Order, emit: Callable[[PipelineEvent], None]) -> Ending:
    """Run the pipeline for an order and say how it ended."""
    if order.threads:
        torch.set_num_threads(order.threads)
    return conclude(lambda: _pipeline(order, emit))


def _pipeline(order: Order, emit: Callable[[PipelineEvent], None]) -> Outcome:
    store = ArtifactStore(order.store)
    match order.assignment, order.model:
        case ScreenAssignment() as screening, model:
            return pipeline.screen(screening, store=store, model=model, device=order.device, emit=emit)
        case assignment, BaseModelEntry() as model:
            return pipeline.run(assignment, store=store, model=model, device=order.device, emit=emit)
        case _:
            raise TypeError("a tuning was ordered without a base model")


def conclude(work: Callable[[], Outcome]) -> Ending:
    """Do the work; every way in which it may end becomes a word."""
    try:
        return Succeeded(outcome=work())
    except Interrupted:
        return Stopped()
    except SecureTuneError as error:
        _log.warning("The job fails: %s (%s)", error.message, error.code)
        return _told(error)
    except torch.OutOfMemoryError:
        _log.exception("The GPU has too little memory for this job")
        return _failed("cuda_oom", "The GPU has too little memory: use a smaller micro_batch_size or max_length.")
    except MemoryError:
        _log.exception("The host has too little memory for this job")
        return _failed("out_of_memory", "The host has too little memory: use a smaller micro_batch_size or max_length.")
    except Exception as error:  # noqa: BLE001 - the edge of the process
        _log.exception("The job fails unexpectedly")
        return _unexpected(error)


def _unexpected(error: Exception) -> Failed:
    if means_full(error):
        return _told(full())
    kind = type(error).__name__
    return _failed("internal_error", f"The training process failed ({kind}). The server's log of this job has more.")


def _told(error: SecureTuneError) -> Failed:
    return Failed(error=JobError(code=error.code, message=error.message, param=error.param))


def _failed(code: str, message: str) -> Failed:
    return Failed(error=JobError(code=code, message=message))


def warm_up() -> None:
    """Pay now what the first tensor operation would pay: torch starts its thread pools lazily."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    _log.info("Process %d is ready", os.getpid())
