"""Runs processes that have a tokenizer, for previews and estimates, with bounds on their time and their number.

Not here: what they compute (core.schemas.preview, core.schemas.workload), the process
(core.pipeline.tokenizer_process).
"""

import logging
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Literal

from pydantic import ValidationError

from core.errors import InvalidInput, SecureTuneError, Unavailable
from core.processes import ROOT, child_environment
from core.schemas.preview import Preview, PreviewOrder
from core.schemas.tokenizing import TokenizerAnswer
from core.schemas.workload import Workload, WorkloadOrder

SECONDS = 60.0
AT_ONCE = 2
_COMMAND = (sys.executable, "-m", "core.pipeline.tokenizer_process")
_MAX_LOGGED = 4000
_LOG = logging.getLogger("securetune.api")
_What = Literal["preview", "estimate"]
_IF_SLOW: dict[_What, str] = {
    "preview": "Try again with fewer rows, from an earlier line.",
    "estimate": "The server may be busy: try again later.",
}


class Tokenizers:
    """Starts processes with a tokenizer, at most `AT_ONCE` at the same time."""

    def __init__(self, *, seconds: float = SECONDS, at_once: int = AT_ONCE) -> None:
        self._seconds = seconds
        self._free = BoundedSemaphore(at_once)

    def preview(self, order: PreviewOrder) -> Preview:
        """Compute a preview.

        Raises:
            InvalidInput: the model's tokenizer or its chat template cannot be used, or the file has changed.
            Unavailable: code `preview_busy`, `preview_too_slow`, `preview_failed` or `hub_unavailable`.
        """
        answer = self._answer("preview", order)
        if answer.preview is None:
            raise _error("preview", answer)
        return answer.preview

    def count_work(self, order: WorkloadOrder) -> Workload:
        """Count the work of a job.

        Raises:
            InvalidInput: a job with this order would fail because of its model's tokenizer or of a file.
            Unavailable: code `estimate_busy`, `estimate_too_slow`, `estimate_failed` or `hub_unavailable`.
        """
        answer = self._answer("estimate", order)
        if answer.workload is None:
            raise _error("estimate", answer)
        return answer.workload

    def _answer(self, what: _What, order: PreviewOrder | WorkloadOrder) -> TokenizerAnswer:
        if not self._free.acquire(blocking=False):
            raise Unavailable(
                "The server is computing other previews or estimates. Try again in a moment.", code=f"{what}_busy"
            )
        try:
            return self._run(what, order)
        finally:
            self._free.release()

    def _run(self, what: _What, order: PreviewOrder | WorkloadOrder) -> TokenizerAnswer:
        try:
            process = subprocess.run(
                _COMMAND,
                input=order.model_dump_json().encode(),
                capture_output=True,
                timeout=self._seconds,
                check=False,
                env=child_environment(os.environ),
                cwd=ROOT,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"The {what} took longer than {self._seconds:g} seconds and was stopped. {_IF_SLOW[what]}",
                code=f"{what}_too_slow",
            ) from error
        if process.returncode != 0:
            _LOG.error("%s: %s", what, process.stderr[-_MAX_LOGGED:].decode(errors="replace"))
            raise _failure(what, f"its process ended with status {process.returncode}")
        try:
            return TokenizerAnswer.model_validate_json(process.stdout)
        except ValidationError as error:
            raise _failure(what, "its answer cannot be read") from error


@contextmanager
def model_parameter() -> Generator[None]:
    """Errors about the `base_model` of an order are about the `model` of a preview."""
    try:
        yield
    except SecureTuneError as error:
        error.param = "model" if error.param == "base_model" else error.param
        raise


def _error(what: _What, answer: TokenizerAnswer) -> InvalidInput | Unavailable:
    failed = answer.failed
    if failed is None:
        return _failure(what, "it answered nothing")
    kind = Unavailable if failed.unavailable else InvalidInput
    return kind(failed.message, code=failed.code, param=failed.param)


def _failure(what: _What, why: str) -> Unavailable:
    return Unavailable(
        f"The {what} could not be computed: {why}. The log of the server has details. If transformers is not "
        "installed there, install securetune[preview].",
        code=f"{what}_failed",
    )
