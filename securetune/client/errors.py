"""The client's error class. Not here: the server's own errors (core.errors)."""

import httpx2
from pydantic import ValidationError
from typing_extensions import override

from core.schemas.data import RowError
from core.schemas.gate import GateReason
from core.schemas.problems import ErrorReply, FieldProblem


class ApiError(Exception):
    """The service rejected a request, or could not be reached (`status` 0, code `unreachable`).

    `details` lists invalid rows or fields; `reasons` says why the gate withholds an adapter.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 0,
        param: str | None = None,
        details: tuple[RowError | FieldProblem, ...] = (),
        reasons: tuple[GateReason, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.param = param
        self.details = details
        self.reasons = reasons

    @override
    def __str__(self) -> str:
        return self.message

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (0, 502, 503, 504) and self.code != "invalid_reply"


def from_response(response: httpx2.Response) -> ApiError:
    """Build the error from a response whose body has been read."""
    try:
        body = ErrorReply.model_validate_json(response.content, extra="ignore").error
    except ValidationError:
        text = response.text[:200].strip() or response.reason_phrase
        return ApiError(f"{response.status_code}: {text}", code="http_error", status=response.status_code)
    return ApiError(
        body.message,
        code=body.code,
        status=response.status_code,
        param=body.param,
        details=body.details or (),
        reasons=body.reasons or (),
    )
