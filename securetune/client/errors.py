"""The client's error class. Not here: the server's own errors (core.errors)."""

from dataclasses import KW_ONLY, dataclass

import httpx2
from pydantic import ValidationError

from core.schemas.data import RowError
from core.schemas.gate import GateReason
from core.schemas.problems import ErrorReply, FieldProblem


@dataclass(eq=False, repr=False)
class ApiError(Exception):
    """The service rejected a request, or could not be reached (`status` 0, code `unreachable`)."""

    message: str
    _: KW_ONLY
    code: str
    status: int = 0
    param: str | None = None
    details: tuple[RowError | FieldProblem, ...] = ()
    """Invalid rows or fields."""
    reasons: tuple[GateReason, ...] = ()
    """Why the gate withholds an adapter."""

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
