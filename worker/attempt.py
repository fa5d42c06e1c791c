"""One attempt at a job, in the training process: runs the pipeline, and returns how it ended.

This is the outermost level of the process: every error becomes a value, and tracebacks go to the log of the attempt.
Importing this module takes seconds (torch, transformers, peft). Not here: pipes (worker.link).
"""

import logging
import os
from collections.abc import Callable

import torch

from core.errors import Interrupted, SecureTuneError
from core.pipeline import run as pipeline
from core.schemas.events import JobError, PipelineEvent
from core.schemas.job import CheckAssignment, ScreenAssignment
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome
from core.storage import ArtifactStore
from core.storage.store import full, means_full
from worker.protocol import Ending, Failed, Order, Stopped, Succeeded

_log = logging.getLogger(__name__)


def run(order: Order, emit: Callable[[PipelineEvent], None]) -> Ending:
    """Run the pipeline for an order, and return how it ended."""
    if order.threads:
        torch.set_num_threads(order.threads)
    return conclude(lambda: _pipeline(order, emit))


def _pipeline(order: Order, emit: Callable[[PipelineEvent], None]) -> Outcome:
    store = ArtifactStore(order.store)
    match order.assignment, order.model:
        case ScreenAssignment() as screening, model:
            return pipeline.screen(screening, store=store, model=model, device=order.device, emit=emit)
        case CheckAssignment() as check, BaseModelEntry() as model:
            return pipeline.check(check, store=store, model=model, device=order.device, emit=emit)
        case assignment, BaseModelEntry() as model if not isinstance(assignment, CheckAssignment):
            return pipeline.run(
                assignment,
                store=store,
                model=model,
                device=order.device,
                emit=emit,
                vllm_python=order.vllm_python,
            )
        case _:
            raise TypeError("this job needs a base model")


def conclude(work: Callable[[], Outcome]) -> Ending:
    """Call `work`, and return how it ended: every error becomes a value."""
    try:
        return Succeeded(outcome=work())
    except Interrupted:
        return Stopped()
    except SecureTuneError as error:
        _log.warning("The job failed: %s (%s)", error.message, error.code)
        return _failed(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        place, code = ("host", "out_of_memory") if isinstance(error, MemoryError) else ("GPU", "cuda_oom")
        _log.exception("Out of %s memory", place)
        hint = "Use a smaller micro_batch_size or max_length."
        return _failed(SecureTuneError(f"The {place} has not enough memory for this job. {hint}", code=code))
    except Exception as error:  # noqa: BLE001 - the outermost level of the process
        _log.exception("The job failed unexpectedly")
        if means_full(error):
            return _failed(full())
        kind = type(error).__name__
        message = f"The training process failed unexpectedly ({kind}). The server's log of this job has details."
        return _failed(SecureTuneError(message))


def _failed(error: SecureTuneError) -> Failed:
    return Failed(error=JobError(code=error.code, message=error.message, param=error.param))


def warm_up() -> None:
    """Start torch's thread pools, which the first tensor operation would otherwise do."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    _log.info("Process %d is ready", os.getpid())
