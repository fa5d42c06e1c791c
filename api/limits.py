"""The size limit of requests. Bytes are counted while they arrive, because `Content-Length` cannot be trusted.

FastAPI's own limit responds in plain text; this one responds with the common error body. Not here: the size limit of
the uploaded file (api.uploads), rate limits.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import plain_error

MULTIPART_SLACK = 2**20
"""Bytes that an upload may have in addition to the file: boundaries, part headers, other fields."""


class BodyLimit:
    """ASGI middleware: 413 for more than `upload` bytes at upload paths, and for more than `other` bytes elsewhere."""

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
        message = f"The request exceeds the limit of this server, {limit} bytes."
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
                # FastAPI passes its own exceptions to the handlers, and turns others into a 400 here.
                raise HTTPException(413, message)
            return part

        await self.app(scope, counted, send)
