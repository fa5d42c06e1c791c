"""The messages between a worker and its training process: one line each, over pipes.

    to the process      one Order as JSON; later `stop` at most once; end of file means that the worker has died
    from the process    JSON lines: Ready, the pipeline's events, and last one of Succeeded, Failed, Stopped

A process that exits without one of the last three was interrupted. Not here: the pipes (worker.link in the process,
worker.child in the worker).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from core.errors import SecureTuneError
from core.schemas.base import Frozen
from core.schemas.events import JobError, PipelineEvent
from core.schemas.job import JobAssignment
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome

STOP = b"stop\n"
LINE_LIMIT = 16 * 2**20
"""Longest line that is read from a process, in bytes."""


class ProtocolError(SecureTuneError):
    """The training process or the worker sent an invalid message."""

    code = "protocol_error"


class Order(Frozen):
    """Everything that a training process gets."""

    assignment: JobAssignment
    """The job, the attempt and the data."""
    model: BaseModelEntry | None
    """Entry of the base model; null for a screening without one."""
    store: Path
    """Folder of the artifact store."""
    device: str
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int
    """CPU threads; 0 for torch's default."""
    vllm_python: Path | None
    """Python interpreter that has vLLM; null if there is none."""


class Ready(Frozen):
    """The process has imported everything and can start an order at once."""

    type: Literal["ready"] = "ready"


class Succeeded(Frozen):
    """The job has succeeded."""

    type: Literal["succeeded"] = "succeeded"
    outcome: Outcome
    """Files of the job, and the decision of the gate."""


class Failed(Frozen):
    """The job has failed."""

    type: Literal["failed"] = "failed"
    error: JobError
    """Why the job failed."""


class Stopped(Frozen):
    """The process stopped because the worker requested it."""

    type: Literal["stopped"] = "stopped"


Ending = Succeeded | Failed | Stopped
Message = PipelineEvent | Ready | Ending
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def encode(message: Message | Order) -> bytes:
    """A message as one line. JSON escapes line ends in texts."""
    return message.model_dump_json().encode() + b"\n"


def decode_order(line: bytes) -> Order:
    """Read an order.

    Raises:
        ProtocolError: the line is not an order.
    """
    try:
        return Order.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError(f"The training process cannot read its order: {error}") from error


def decode(line: bytes) -> Message:
    """Read a message of the process. NUL characters are replaced, because PostgreSQL cannot store them.

    Raises:
        ProtocolError: the line is not a message, or was cut off.
    """
    try:
        return _MESSAGE.validate_json(line.replace(rb"\u0000", rb"\ufffd"))
    except ValidationError as error:
        raise ProtocolError(
            f"The training process sent an invalid message ({error.error_count()} errors): {line[:200]!r}"
        ) from error
