"""An upload on its way in: taken apart while it arrives, hashed, and written to a folder that ends with the request.

The framework's own form parsing would read a whole body before it asks who is calling, and write it to the system's
temporary folder first. Covers: multipart parsing, the fields beside the file. Not here: what the file holds
(core.data), what becomes of it (api.routes.datasets, api.routes.prompt_sets).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, BinaryIO, get_args

from fastapi import Depends, Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from api.deps import SettingsDep, StoreDep
from api.errors import in_one_sentence, problems
from core.errors import InvalidInput, TooLarge
from core.schemas.data import ColumnMap
from core.schemas.prompts import Layout

LONGEST_NAME = 200
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_LONGEST_FIELD = 16 * 1024
_DATASET = ("file", "columns", "name")
_PROMPTS = ("file", "layout", "name")
_BATCH = 2**20


@dataclass(frozen=True)
class Received:
    """A received file."""

    path: Path
    """Where it lies until the route returns."""
    sha256: str
    """Digest, in hex."""
    bytes: int
    """Size."""
    name: str
    """Name for people."""


@dataclass(frozen=True)
class DatasetUpload(Received):
    """A dataset's file, and what was said of it."""

    columns: ColumnMap | None
    """Column map."""


@dataclass(frozen=True)
class PromptUpload(Received):
    """A file of prompts, and what was said of it."""

    layout: Layout
    """How its columns are named."""


class UploadForm:
    """One multipart body, pushed in piece by piece; the bytes of its `file` go to `out` as they come.

    `fields` are the parts that it may have: `file`, and texts.
    """

    def __init__(self, content_type: str, out: BinaryIO, max_bytes: int, *, fields: tuple[str, ...]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidInput("Send `multipart/form-data` with the file in the part `file`.", code="invalid_body")
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
        """Take the next piece of the body.

        Raises:
            InvalidInput: it is no multipart body, or has parts that do not belong there.
            TooLarge: the file is over the limit.
        """
        with _malformed():
            self._parser.write(data)

    def end(self) -> None:
        """Say that the body is over.

        Raises:
            InvalidInput: it stopped in the middle, or had no file.
        """
        if not self._ended:
            raise InvalidInput("The upload stops in the middle of its multipart body.", code="invalid_body")
        if "file" not in self._seen:
            raise InvalidInput("There is no part `file`: it holds the upload.", code="missing_file", param="file")
        self._out.flush()

    def text(self, field: str) -> str | None:
        """The value of a text field, or None when there is none or an empty one."""
        try:
            return self.texts.get(field, b"").decode() or None
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{field}: not UTF-8.", code="invalid_parameter", param=field) from error

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
            problem = "twice" if part in self._seen else "that is not known here"
            known = ", ".join(self._fields)
            raise InvalidInput(f"There is a part {part!r} {problem}. Parts: {known}.", code="unknown_part", param=part)
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
                raise TooLarge(f"The file is larger than the {self._max_bytes} bytes this server takes.", param="file")
            self.digest.update(piece)
            self._out.write(piece)
        elif self._part is not None:
            text = self.texts[self._part]
            text += piece
            if len(text) > _LONGEST_FIELD:
                raise TooLarge(f"{self._part}: longer than {_LONGEST_FIELD} bytes.", param=self._part)

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
    """How the reference describes a body of these parts; every upload may be given a name beside them."""
    name = {
        "type": "string",
        "maxLength": LONGEST_NAME,
        "description": "A name for people; the file's own when it is left out.",
    }
    form = {"type": "object", "required": [*required], "properties": {**fields, "name": name}}
    return {"required": True, "content": {"multipart/form-data": {"schema": form, "example": dict(example)}}}


def _staging(store: StoreDep) -> Iterator[Path]:
    with store.staging() as folder:
        yield folder


_Folder = Annotated[Path, Depends(_staging, scope="function")]


async def _receive(request: Request, path: Path, max_bytes: int, fields: tuple[str, ...]) -> UploadForm:
    """Read the body of this request. Parsing, hashing and writing happen in a worker thread, a megabyte at a time."""
    with await run_in_threadpool(path.open, "wb") as out:
        form = UploadForm(request.headers.get("content-type", ""), out, max_bytes, fields=fields)
        batch = bytearray()
        async for piece in request.stream():
            batch += piece
            if len(batch) >= _BATCH:
                await run_in_threadpool(form.write, bytes(batch))
                batch.clear()
        await run_in_threadpool(form.write, bytes(batch))
        form.end()
    return form


async def _dataset(request: Request, settings: SettingsDep, folder: _Folder) -> DatasetUpload:
    path = folder / "upload"
    form = await _receive(request, path, settings.max_upload_bytes, _DATASET)
    return DatasetUpload(
        path=path,
        sha256=form.digest.hexdigest(),
        bytes=form.size,
        name=_name(form, "dataset"),
        columns=_columns(form.text("columns")),
    )


async def _prompts(request: Request, settings: SettingsDep, folder: _Folder) -> PromptUpload:
    path = folder / "upload"
    form = await _receive(request, path, settings.max_upload_bytes, _PROMPTS)
    return PromptUpload(
        path=path,
        sha256=form.digest.hexdigest(),
        bytes=form.size,
        name=_name(form, "prompts"),
        layout=_layout(form.text("layout")),
    )


DatasetUploadDep = Annotated[DatasetUpload, Depends(_dataset)]
PromptUploadDep = Annotated[PromptUpload, Depends(_prompts)]


def _name(form: UploadForm, otherwise: str) -> str:
    given = form.text("name")
    if given is not None:
        if len(given) > LONGEST_NAME or not given.isprintable():
            reason = f"at most {LONGEST_NAME} printable characters"
            raise InvalidInput(f"name: {reason}.", code="invalid_parameter", param="name")
        return given
    last = form.filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:LONGEST_NAME] or otherwise


def _layout(text: str | None) -> Layout:
    for layout in LAYOUTS:
        if text == layout:
            return layout
    found = "it is missing" if text is None else f"it is {text[:LONGEST_NAME]!r}"
    raise InvalidInput(
        f"layout: {found}; say how the file's columns are named, with one of {', '.join(LAYOUTS)}.",
        code="invalid_parameter",
        param="layout",
    )


def _columns(text: str | None) -> ColumnMap | None:
    if text is None:
        return None
    try:
        columns = ColumnMap.model_validate_json(text)
    except ValidationError as error:
        found = problems(error.errors(), None)
        message = f"columns is not a column map: {in_one_sentence(found)}"
        raise InvalidInput(message, code="invalid_parameter", param="columns") from error
    if "\0" in f"{columns.prompt}{columns.completion}{columns.system}":
        raise InvalidInput("columns: a column name has a NUL character.", code="invalid_parameter", param="columns")
    return columns
