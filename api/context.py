"""Headers of every response: the request id, and headers that restrict what browsers do with it.

Not here: limits (api.limits), bodies of errors (api.errors).
"""

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "x-request-id"
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
    "vary": "accept",
}
"""Headers of pages that show texts of models and datasets, which nobody vouches for: nothing in them may run, load or
lead anywhere."""

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def request_id(scope: Scope) -> str:
    """The id of a request: the caller's `x-request-id` if it has only safe characters, otherwise a new id."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        header = Headers(scope=scope).get(REQUEST_ID, "")
        state["request_id"] = header if _SAFE_ID.fullmatch(header) else f"req_{secrets.token_hex(12)}"
    return state["request_id"]


def add_headers(headers: MutableHeaders, scope: Scope) -> None:
    """Add the common headers that a response does not have."""
    headers[REQUEST_ID] = request_id(scope)
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)


class RequestContext:
    """ASGI middleware that adds the common headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers(MutableHeaders(scope=message), scope)
            await send(message)

        await self.app(scope, receive, send_with_headers)
