"""A stored file as a response: whole or by ranges, with its digest, and not sent again to who has it already.

Covers: ETag and `If-None-Match` (RFC 9110), `Repr-Digest` (RFC 9530), ranges that cannot be served. The framework's
FileResponse does the rest. Not here: who may have the file (api.routes.artifacts).
"""

from base64 import b64encode
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response
from starlette.types import Receive, Scope, Send

from api.errors import plain_error


class Download(FileResponse):
    """The bytes of one stored file, which never change: the digest is the ETag."""

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
        known = {
            "cache-control": "private, no-cache",
            "etag": self._etag,
            "repr-digest": f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:",
        }
        super().__init__(path, media_type=media_type, filename=filename, headers=known | (headers or {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        if self._is_known(asked.get("if-none-match", "")):
            kept = {k: v for k, v in self.headers.items() if k in ("etag", "cache-control", "vary")}
            await Response(status_code=304, headers=kept)(scope, receive, send)
            return
        try:
            if self._size == 0 or asked.get("if-range", self._etag) != self._etag:
                raise MalformedRangeHeader
            self._parse_range_header(asked.get("range", "bytes=0-"), self._size)
        except MalformedRangeHeader:
            # RFC 9110, section 14.2: a Range header that is not understood is as good as none.
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        except RangeNotSatisfiable:
            message = f"The file has {self._size} bytes: the range begins behind its end."
            headers = {"content-range": f"bytes */{self._size}"}
            await plain_error(416, "range_not_satisfiable", message, headers=headers)(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def _is_known(self, tags: str) -> bool:
        given = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return bool(given & {self._etag, "*"})
