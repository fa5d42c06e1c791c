"""How large a request may be. The bytes are counted as they arrive: what a caller says of them is not trusted.

FastAPI's own limit answers in plain text when a body is refused by its announced length; this one answers in the shape
of every other error. Not here: the size of the uploaded file itself (api.uploads), rate limits.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import plain_error

MULTIPART_SLACK = 2**20
"""Bytes that an upload may have beside the file: boundaries, part headers, the other fields."""


class BodyLimit:
    """ASGI middleware: more than `upload` bytes to an upload path, or `other` bytes elsewhere, is a 413."""

    def __init__(self, app: ASGIApp, *, upload: int, upload_paths: frozenset[str], other: int) -> None:
        self.app = app
        self.upload = upload + MULTIPART_SLACK
        self.upload_paths = upload_paths
        self.other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.upload if scope["path"] in self.upload_paths else self.other
        message = f"The request is larger than {limit} bytes, which is as much as this server takes here."
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            await plain_error(413, "too_large", message)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            part = await receive()
            received += len(part.get("body", b""))
            if received > limit:
                # The framework hands its own exception through to the handlers; it would turn ours into a 400.
                raise HTTPException(413, message)
            return part

        await self.app(scope, counted, send)
