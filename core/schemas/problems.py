"""Errors as the HTTP API returns them, and the health of the service.

Not here: the exceptions (core.errors), the status of each (api.errors), all other replies (core.schemas.replies).
"""

from typing import Literal

from core.schemas.base import Frozen
from core.schemas.data import RowError
from core.schemas.gate import GateReason

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "service_error",
]
PartState = Literal["up", "down", "not_migrated"]


class Health(Frozen):
    """The process is running."""

    status: Literal["ok"] = "ok"
    """Always `ok`, as long as the process answers."""


class Readiness(Frozen):
    """Whether the parts that a job needs can be reached."""

    database: PartState
    """State of PostgreSQL; `not_migrated` if its schema is not the one of this version."""
    broker: PartState
    """State of Redis or Valkey, which notifies workers."""

    @property
    def ready(self) -> bool:
        """Whether every part is up."""
        return self.database == "up" and self.broker == "up"


class FieldProblem(Frozen):
    """One invalid field of a request."""

    param: str
    """Path of the field, such as `training.learning_rate`."""
    message: str
    """What is wrong with the value of the field."""


class ErrorBody(Frozen):
    """An error: what is wrong, and what to do."""

    message: str
    """What is wrong and what to do, for people."""
    type: ErrorType
    """Broad kind of the error, which follows from the status."""
    param: str | None
    """Path of the invalid field, part or parameter; null if there is none."""
    code: str
    """Stable code of the error, for programs."""
    details: tuple[RowError | FieldProblem, ...] | None = None
    """The first 100 invalid rows or fields, if there is more than one."""
    count: int | None = None
    """Number of invalid rows in the whole file."""
    reasons: tuple[GateReason, ...] | None = None
    """Why the gate withholds a file."""
    readiness: Readiness | None = None
    """State of each part; only in replies of `/readyz`."""


class ErrorReply(Frozen):
    """The body of every error response."""

    error: ErrorBody
    """The error that the request caused."""
