"""The status and the body of every error.

Every body has the shape `{"error": {"message", "type", "param", "code"}}`, whether securetune, FastAPI's validation or
its router raised the error, or it was unexpected. Not here: the errors themselves (core.errors).
"""

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.context import add_headers, request_id
from core.errors import (
    Conflict,
    Forbidden,
    InvalidDataset,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    SecureTuneError,
    StorageFull,
    TooLarge,
    Unavailable,
    Withheld,
)
from core.schemas.problems import ErrorBody, ErrorReply, ErrorType, FieldProblem

MAX_DETAILS = 100

_LOG = logging.getLogger("securetune.api")
_LONGEST_PARAM = 200
STATUS: dict[type[SecureTuneError], int] = {
    InvalidInput: 400,
    NotAuthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Unavailable: 503,
    StorageFull: 507,
    SecureTuneError: 500,
}
_TYPES: dict[int, ErrorType] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
}
_HEADERS = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "2"}}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 416: "range_not_satisfiable"}


def error_type(status: int) -> ErrorType:
    """The kind of errors with this status."""
    return _TYPES.get(status, "service_error" if status >= 500 else "invalid_request_error")


def error_response(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error response. Optional fields are left out if they are null."""
    content = ErrorReply(error=body).model_dump(mode="json")
    optional = {"details", "count", "readiness", "reasons"}
    content["error"] = {k: v for k, v in content["error"].items() if v is not None or k not in optional}
    return JSONResponse(content, status, headers=_HEADERS.get(status, {}) | (headers or {}))


def plain_error(
    status: int, code: str, message: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error response with a message only."""
    body = ErrorBody(message=message, type=error_type(status), param=param, code=code)
    return error_response(status, body, headers)


def problems(errors: Sequence[ErrorDetails], body: object, *, skip: int = 0) -> tuple[FieldProblem, ...]:
    """The errors of pydantic with field paths of the request; the first `skip` parts of each location are left out."""
    return tuple(
        FieldProblem(
            param=field_path(error["loc"][skip:], body, absent=error["type"] == "missing"),
            message=_message(error),
        )
        for error in errors[:MAX_DETAILS]
    )


def _message(error: ErrorDetails) -> str:
    """Pydantic's message, or a plainer one."""
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "union_tag_not_found":
            return f"missing {context['discriminator']}"  # in quotes
        case "union_tag_invalid":
            return f"{context['discriminator']} is {context['tag']!r}, and must be one of {context['expected_tags']}"
        case _:
            return error["msg"].removeprefix("Value error, ")


def in_one_sentence(found: Sequence[FieldProblem]) -> str:
    """The first problem, and the number of others."""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0].param or 'body'}: {found[0].message}{more}"


def install(app: FastAPI) -> None:
    """Register the handlers of all errors."""
    app.add_exception_handler(SecureTuneError, _ours)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _from_framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, SecureTuneError)  # noqa: S101 - Starlette's signature is wider than what it passes
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if status >= 500:
        _LOG.warning("%s %s: %s (%s)", request_id(request.scope), error.code, error.message, error.__cause__)
    details, count = None, None
    if isinstance(error, InvalidDataset):
        details, count = error.errors[:MAX_DETAILS], error.count
    body = ErrorBody(
        message=error.message,
        type=error_type(status),
        param=error.param,
        code=error.code,
        details=details,
        count=count,
        reasons=error.reasons if isinstance(error, Withheld) else None,
    )
    return error_response(status, body)


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors: Sequence[ErrorDetails] = error.errors()
    where = errors[0]["loc"][0]
    if where == "path":
        return plain_error(404, "not_found", f"There is no resource at {request.url.path!r}.")
    if errors[0]["type"] == "json_invalid":
        place, reason = errors[0]["loc"][-1], errors[0].get("ctx", {}).get("error", "")
        return plain_error(422, "invalid_json", f"The body is not valid JSON: {reason} at character {place}.")
    found = problems(errors, error.body, skip=1)
    if errors[0]["loc"] == ("body",) and errors[0]["type"] != "value_error":
        hint = "Send a JSON object with `Content-Type: application/json`."
        return plain_error(422, "invalid_body", f"The body is missing or has the wrong type. {hint}")
    body = ErrorBody(
        message=in_one_sentence(found),
        type=error_type(422),
        param=found[0].param or None,
        code="invalid_parameter",
        details=found,
    )
    return error_response(422, body)


async def _from_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    match error.status_code:
        case 404:
            message = f"There is no resource at {request.url.path!r}."
        case 405:
            message = f"{request.url.path!r} does not support {request.method}."
        case 400:
            message = f"The body cannot be read: {_unreadable(error.__cause__)}."
        case _:
            message = error.detail
    code = _CODES.get(error.status_code, "invalid_body" if error.status_code == 400 else "http_error")
    return plain_error(error.status_code, code, message, headers=dict(error.headers or {}))


def _unreadable(cause: BaseException | None) -> str:
    match cause:
        case RecursionError():
            return "its brackets are nested too deeply"
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case ValueError():
            return "a number has too many digits"
        case _:
            return "it is malformed"


async def _gone(request: Request, _: Exception) -> Response:
    _LOG.info("%s the client disconnected during its request", request_id(request.scope))
    return plain_error(400, "disconnected", "The client disconnected before the end of the body.")


async def _unexpected(request: Request, error: Exception) -> Response:
    known = request_id(request.scope)
    _LOG.error("%s unexpected error", known, exc_info=error)
    message = f"An unexpected error occurred. The log of the server has details under {known}."
    response = plain_error(500, SecureTuneError.code, message)
    add_headers(response.headers, request.scope)
    return response


def field_path(place: Sequence[int | str], body: object, *, absent: bool) -> str:
    """The path of a field in a request body: `("strategy", "ml_lr", "ratio")` is `strategy.ratio`.

    Pydantic's locations also name union members, which the path leaves out. `absent` means that the last part is a
    missing field.
    """
    path, here = "", body
    for depth, part in enumerate(place):
        match here, part:
            case dict(), str() if part in here or (absent and depth == len(place) - 1):
                path, here = f"{path}.{part}", here.get(part)
            case list(), int() if 0 <= part < len(here):
                path, here = f"{path}[{part}]", here[part]
            case ((dict() | list()), _):
                continue
            case None, _ if depth == 0:
                path = f"{path}.{part}"
            case _:
                break
    return path.removeprefix(".").encode("utf-8", "backslashreplace").decode()[:_LONGEST_PARAM]
