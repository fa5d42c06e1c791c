"""Runs the process that computes a preview, with bounds on its time and on how many run at once.

Not here: what a preview has (core.schemas.preview), the process (core.pipeline.preview_process).
"""

import logging
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from threading import BoundedSemaphore

from pydantic import ValidationError

from core.errors import InvalidInput, SecureTuneError, Unavailable
from core.processes import ROOT, child_environment
from core.schemas.preview import Preview, PreviewAnswer, PreviewOrder

SECONDS = 60.0
AT_ONCE = 2
_COMMAND = (sys.executable, "-m", "core.pipeline.preview_process")
_MAX_LOGGED = 4000
_LOG = logging.getLogger("securetune.api")


class Previews:
    """Computes previews, at most `AT_ONCE` at the same time."""

    def __init__(self, *, seconds: float = SECONDS, at_once: int = AT_ONCE) -> None:
        self._seconds = seconds
        self._free = BoundedSemaphore(at_once)

    def compute(self, order: PreviewOrder) -> Preview:
        """Compute a preview.

        Raises:
            InvalidInput: the model's tokenizer or its chat template cannot be used, or the file has changed.
            Unavailable: code `preview_busy`, `preview_too_slow`, `preview_failed` or `hub_unavailable`.
        """
        if not self._free.acquire(blocking=False):
            raise Unavailable("The server is computing other previews. Try again in a moment.", code="preview_busy")
        try:
            answer = self._run(order)
        finally:
            self._free.release()
        if answer.preview is not None:
            return answer.preview
        if answer.failed is None:
            raise _failure("it answered nothing")
        kind = Unavailable if answer.failed.unavailable else InvalidInput
        raise kind(answer.failed.message, code=answer.failed.code, param=answer.failed.param)

    def _run(self, order: PreviewOrder) -> PreviewAnswer:
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
                f"The preview took longer than {self._seconds:g} seconds and was stopped. Try again with fewer rows, "
                "from an earlier line.",
                code="preview_too_slow",
            ) from error
        if process.returncode != 0:
            _LOG.error("preview: %s", process.stderr[-_MAX_LOGGED:].decode(errors="replace"))
            raise _failure(f"its process ended with status {process.returncode}")
        try:
            return PreviewAnswer.model_validate_json(process.stdout)
        except ValidationError as error:
            raise _failure("its answer cannot be read") from error


@contextmanager
def model_parameter() -> Generator[None]:
    """Errors about the `base_model` of an order are about the `model` of a preview."""
    try:
        yield
    except SecureTuneError as error:
        error.param = "model" if error.param == "base_model" else error.param
        raise


def _failure(why: str) -> Unavailable:
    return Unavailable(
        f"The preview could not be computed: {why}. The log of the server has details. If transformers is not "
        "installed there, install securetune[preview].",
        code="preview_failed",
    )
