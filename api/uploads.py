"""Receiving an upload: the multipart body is parsed, hashed and written to a staging folder while it arrives.

FastAPI's form parsing would read the whole body before authentication, and write it to the system's temporary folder.
python-multipart parses; decision record 0018 explains why. Covers: parts, limits, the fields besides the
file. Not here: the content of the file (core.data), storing it (core.orders.upload).
"""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar, get_args

from fastapi import Depends, Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.deps import Parts, PartsDep
from api.errors import in_one_sentence, problems
from core.errors import InvalidInput, TooLarge
from core.orders import Upload
from core.schemas.data import ColumnMap
from core.schemas.prompts import Layout

LONGEST_NAME = 200
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_LONGEST_FIELD = 16 * 1024
_BATCH = 2**20
_LOOK_SECONDS = 0.2
"""Seconds between looks whether the caller of a waiting upload is still there."""

_Stored = TypeVar("_Stored")


class UploadForm:
    """A parser of one multipart body that arrives in pieces. The part `file` is written to `out`, all others are kept.

    `fields` are the names of allowed parts: `file`, and text fields.
    """

    def __init__(self, content_type: str, out: BinaryIO, max_bytes: int, *, fields: tuple[str, ...]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidInput(
                "Send `multipart/form-data` with a boundary, and the file in the part `file`.", code="invalid_body"
            )
        self.filename = ""
        self.size = 0
        self.digest = sha256()
        self.texts: dict[str, bytearray] = {}
        self._out = out
        self._max_bytes = max_bytes
        self._fields = fields
        self._header, self._value, self._disposition = b"", b"", b""
        self._part: str | None = None
        self._seen: set[str] = set()
        self._ended = False
        with _malformed():
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )

    def write(self, data: bytes) -> None:
        """Parse the next piece of the body.

        Raises:
            InvalidInput: code `invalid_body` or `unknown_part`.
            TooLarge: the file or a field exceeds its limit.
        """
        with _malformed():
            self._parser.write(data)

    def end(self) -> None:
        """Check that the body is complete.

        Raises:
            InvalidInput: code `invalid_body`, if it is truncated, or `missing_file`.
        """
        if not self._ended:
            raise InvalidInput("The multipart body is truncated: send it again.", code="invalid_body")
        if "file" not in self._seen:
            raise InvalidInput("The part `file` is missing: send the file in it.", code="missing_file", param="file")
        self._out.flush()

    def text(self, field: str) -> str | None:
        """The value of a text field; None if it is missing or empty."""
        try:
            return self.texts.get(field, b"").decode() or None
        except UnicodeDecodeError as error:
            raise _invalid(field, "it is not UTF-8 text") from error

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        part = options.get(b"name", b"").decode("utf-8", "replace")[:LONGEST_NAME]
        if part not in self._fields or part in self._seen:
            problem = "appears twice" if part in self._seen else "is unknown"
            message = f"The part {part!r} {problem}. Allowed parts: {', '.join(self._fields)}."
            raise InvalidInput(message, code="unknown_part", param=part)
        if part == "file":
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        else:
            self.texts[part] = bytearray()
        self._disposition = b""
        self._part = part
        self._seen.add(part)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._part == "file":
            self.size += len(piece)
            if self.size > self._max_bytes:
                raise TooLarge(f"The file exceeds the limit of this server, {self._max_bytes} bytes.", param="file")
            self.digest.update(piece)
            self._out.write(piece)
        elif self._part is not None:
            text = self.texts[self._part]
            text += piece
            if len(text) > _LONGEST_FIELD:
                raise TooLarge(f"{self._part}: use at most {_LONGEST_FIELD} bytes.", param=self._part)

    def _on_end(self) -> None:
        self._ended = True


@contextmanager
def _malformed() -> Generator[None]:
    try:
        yield
    except FormParserError as error:
        raise InvalidInput(f"The body is not well-formed multipart: {error}.", code="invalid_body") from error


def multipart(
    fields: Mapping[str, object], *, required: Sequence[str], example: Mapping[str, str]
) -> dict[str, object]:
    """The OpenAPI description of an upload with these fields and a name."""
    name = {
        "type": "string",
        "maxLength": LONGEST_NAME,
        "description": "Name to show; by default the name of the file.",
    }
    form = {"type": "object", "required": [*required], "properties": {**fields, "name": name}}
    return {"required": True, "content": {"multipart/form-data": {"schema": form, "example": dict(example)}}}


def _staging(parts: PartsDep) -> Iterator[Path]:
    with parts.store.staging() as folder:
        yield folder


_Folder = Annotated[Path, Depends(_staging, scope="function")]


async def _receive(
    request: Request, parts: Parts, folder: Path, field: str, *, default_name: str
) -> tuple[Upload, str | None]:
    """Read the body of a request: the file, and the text of `field`.

    Parsing, hashing and writing run in a worker thread, one megabyte at a time.
    """
    path = folder / "upload"
    with await run_in_threadpool(path.open, "wb") as out:
        content_type = request.headers.get("content-type", "")
        form = UploadForm(content_type, out, parts.settings.max_upload_bytes, fields=("file", field, "name"))
        batch = bytearray()
        async for piece in request.stream():
            batch += piece
            if len(batch) >= _BATCH:
                await run_in_threadpool(form.write, bytes(batch))
                batch.clear()
        await run_in_threadpool(form.write, bytes(batch))
        form.end()
    name = _name(form, default_name)
    return Upload(path=path, sha256=form.digest.hexdigest(), bytes=form.size, name=name), form.text(field)


async def _dataset(request: Request, parts: PartsDep, folder: _Folder) -> tuple[Upload, ColumnMap | None]:
    upload, columns = await _receive(request, parts, folder, "columns", default_name="dataset")
    return upload, _columns(columns)


async def _prompts(request: Request, parts: PartsDep, folder: _Folder) -> tuple[Upload, Layout]:
    upload, layout = await _receive(request, parts, folder, "layout", default_name="prompts")
    return upload, _layout(layout)


DatasetUploadDep = Annotated[tuple[Upload, ColumnMap | None], Depends(_dataset)]
"""A dataset's file and its column map."""
PromptUploadDep = Annotated[tuple[Upload, Layout], Depends(_prompts)]
"""A file of prompts and its layout."""


async def store_in_turn(request: Request, parts: Parts, store: Callable[[], _Stored]) -> _Stored:
    """Validate and store an upload in one of few threads, so that the API answers others meanwhile.

    Nothing is done for a caller who went away before the turn came.
    """
    turn = parts.validators.submit(store)
    stored = asyncio.wrap_future(turn)
    while not stored.done():
        if await request.is_disconnected() and turn.cancel():
            raise ClientDisconnect
        await asyncio.wait({stored}, timeout=_LOOK_SECONDS)
    return stored.result()  # which also takes its error, so that asyncio does not log it


def _name(form: UploadForm, default: str) -> str:
    name = form.text("name")
    if name is None:
        last = form.filename.replace("\\", "/").rpartition("/")[2]
        return "".join(c for c in last if c.isprintable())[:LONGEST_NAME] or default
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise _invalid("name", f"use at most {LONGEST_NAME} printable characters")
    return name


def _layout(text: str | None) -> Layout:
    for layout in LAYOUTS:
        if text == layout:
            return layout
    problem = "it is missing" if text is None else f"it is {text[:LONGEST_NAME]!r}"
    raise _invalid("layout", f"{problem}; the layout names the columns of the file, as one of {', '.join(LAYOUTS)}")


def _columns(text: str | None) -> ColumnMap | None:
    if text is None:
        return None
    try:
        columns = ColumnMap.model_validate_json(text)
    except ValidationError as error:
        reason = in_one_sentence(problems(error.errors(), None))
        raise _invalid("columns", f"not a column map: {reason}") from error
    if any("\0" in name for name in columns.model_dump(exclude_none=True).values()):
        raise _invalid("columns", "a column name contains a NUL character")
    return columns


def _invalid(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param}: {reason}.", code="invalid_parameter", param=param)
