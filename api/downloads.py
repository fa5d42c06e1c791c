"""A stored file as a response, with its digest, ranges and conditional requests.

Covers: ETag and `If-None-Match` (RFC 9110), `Repr-Digest` (RFC 9530), unsatisfiable ranges. Starlette's FileResponse
does the rest. Not here: who may download a file (core.db.artifacts).
"""

from base64 import b64encode
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response
from starlette.types import Receive, Scope, Send

from api.errors import plain_error


class Download(FileResponse):
    """One stored file. Its bytes never change, so its digest is the ETag."""

    def __init__(
        self,
        path: Path,
        *,
        sha256: str,
        media_type: str,
        filename: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._size = path.stat().st_size
        self._etag = f'"{sha256}"'
        common = {
            "cache-control": "private, no-cache",
            "etag": self._etag,
            "repr-digest": f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:",
        }
        super().__init__(path, media_type=media_type, filename=filename, headers=common | (headers or {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Headers(scope=scope)
        tags = {tag.strip().removeprefix("W/") for tag in request.get("if-none-match", "").split(",")}
        if tags & {self._etag, "*"}:
            kept = {k: v for k, v in self.headers.items() if k in ("etag", "cache-control", "vary")}
            await Response(status_code=304, headers=kept)(scope, receive, send)
            return
        try:
            if self._size == 0 or request.get("if-range", self._etag) != self._etag:
                raise MalformedRangeHeader
            self._parse_range_header(request.get("range", "bytes=0-"), self._size)
        except MalformedRangeHeader:
            # RFC 9110, section 14.2: ignore an invalid Range header.
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        except RangeNotSatisfiable:
            message = f"The range begins after the end of the file, which has {self._size} bytes."
            headers = {"content-range": f"bytes */{self._size}"}
            await plain_error(416, "range_not_satisfiable", message, headers=headers)(scope, receive, send)
            return
        await super().__call__(scope, receive, send)
