"""What a worker and its training process say to each other, over pipes, one line each.

    to the process      an Order as JSON, once; later perhaps `stop`; the end of the file means that the worker is gone
    from the process    JSON lines: Ready, the pipeline's events, and at the end one of Succeeded, Failed, Stopped

A process that goes without one of the last three was interrupted, never successful.
Not here: the pipes themselves (worker.link on the process's side, worker.child on the worker's).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from core.errors import SecureTuneError
from core.schemas.base import Frozen
from core.schemas.events import JobError, PipelineEvent
from core.schemas.job import Assignment, ScreenAssignment
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome

STOP = b"stop\n"
LINE_LIMIT = 16 * 2**20
"""Longest line that is taken from a process, in bytes."""


class ProtocolError(SecureTuneError):
    """The training process said something that is not in the protocol."""

    code = "protocol_error"


class Order(Frozen):
    """All that a training process is told."""

    assignment: Assignment | ScreenAssignment
    """The job, the attempt and the data."""
    model: BaseModelEntry | None
    """Where the base model is; null where a screening takes none."""
    store: Path
    """Folder of the artifact store."""
    device: str
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int
    """CPU threads; 0 leaves the choice to torch."""


class Ready(Frozen):
    """Everything is imported: an order would be begun at once."""

    type: Literal["ready"] = "ready"
    """Kind of line."""


class Succeeded(Frozen):
    """The job is done."""

    type: Literal["succeeded"] = "succeeded"
    """Kind of line."""
    outcome: Outcome
    """What it leaves behind."""


class Failed(Frozen):
    """The job cannot be done."""

    type: Literal["failed"] = "failed"
    """Kind of line."""
    error: JobError
    """Why."""


class Stopped(Frozen):
    """The process stopped early because it was asked to."""

    type: Literal["stopped"] = "stopped"
    """Kind of line."""


Ending = Succeeded | Failed | Stopped
Word = PipelineEvent | Ready | Ending
_WORD: TypeAdapter[Word] = TypeAdapter(Annotated[Word, Field(discriminator="type")])


def encode(word: Word | Order) -> bytes:
    """One line, with its end. JSON escapes the line ends inside."""
    return word.model_dump_json().encode() + b"\n"


def decode_order(line: bytes) -> Order:
    """The order in a line.

    Raises:
        ProtocolError: there is none.
    """
    try:
        return Order.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError(f"The training process was given an order that it cannot read: {error}") from error


def decode(line: bytes) -> Word:
    """What the process said. PostgreSQL stores no NUL character, so none gets through.

    Raises:
        ProtocolError: it is not in the protocol, or the line was cut off.
    """
    try:
        return _WORD.validate_json(line.replace(rb"\u0000", rb"\ufffd"))
    except ValidationError as error:
        raise ProtocolError(
            f"The training process wrote what is not in the protocol ({error.error_count()} errors): {line[:200]!r}"
        ) from error
