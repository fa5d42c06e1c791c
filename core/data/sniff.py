"""The format of a file, from its bytes and never from its name.

Covers: empty and binary files, the choice between JSONL, a JSON array, JSON objects over several lines, CSV with its
delimiter, Parquet and Arrow. Not here: compression and encodings (core.data.streams), reading the rows
(core.data.records), their layout (core.data.layouts).
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from core.data.arrowrows import ARROW_FILE, ARROW_STREAM, PARQUET_FILE
from core.data.streams import HEAD_BYTES, unreadable_file
from core.schemas.data import Delimiter, FileFormat

UTF8_BOM = b"\xef\xbb\xbf"

_BLANK = b" \t\r\n"
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\r\x0b\x0c")
_MAGIC = (
    (b"PK\x03\x04", "is a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook: save the sheet as CSV"),
    (b"%PDF", "is a PDF"),
    (b"SQLite format 3", "is an SQLite database: export its rows as JSONL or CSV"),
)
_LINE_END = re.compile(rb"[\r\n]")
_QUOTED = re.compile(r'"[^"]*"')
_DELIMITERS: tuple[Delimiter, ...] = (",", ";", "\t")


@dataclass(frozen=True)
class SourceFormat:
    """How a file is written."""

    file_format: FileFormat
    delimiter: Delimiter | None = None
    """What separates the columns of a CSV file."""


def sniff(stream: BinaryIO) -> SourceFormat:
    """The format of `stream`, which is left at its first byte after a byte order mark.

    Raises:
        InvalidDataset: the file is empty, blank or binary.
    """
    head = stream.read(HEAD_BYTES)
    begin = len(UTF8_BOM) if head.startswith(UTF8_BOM) else 0
    text = head[begin:]
    while text and not text.strip(_BLANK):
        text = stream.read(HEAD_BYTES)
    stream.seek(begin)
    if not text:
        raise unreadable_file(1, "the file is empty" if len(head) == begin else "the file contains only blank lines")
    if text.startswith(PARQUET_FILE):
        return SourceFormat("parquet")
    if text.startswith((ARROW_FILE, ARROW_STREAM)):
        return SourceFormat("arrow")
    _refuse_binary(text)
    content = text.lstrip(_BLANK)
    if content.startswith(b"["):
        return SourceFormat("json")
    if content.startswith(b"{"):
        return SourceFormat("json_objects" if _spans_lines(content) else "jsonl")
    if content.startswith((b'"{', b'"[')):
        return SourceFormat("jsonl")
    return SourceFormat("csv", _delimiter(content))


def _refuse_binary(text: bytes) -> None:
    for magic, what in _MAGIC:
        if text.startswith(magic):
            raise unreadable_file(1, f"the file {what}")
    # One byte in ten of anything compressed is a control character.
    odd = len(text) - len(text.translate(None, b"\0" if _is_utf8(text) else _CONTROL))
    if odd > len(text) // 20 and (text[:1] in _CONTROL or odd > 2):
        raise unreadable_file(1, "the file is binary, or text in an unknown encoding")


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut by the end of the head
    return True


def _spans_lines(content: bytes) -> bool:
    """Whether the first object goes on after its line."""
    first, newline, rest = content.partition(b"\n")
    following = rest.lstrip(_BLANK)
    ends = first.rstrip(_BLANK).endswith((b"}", b"},"))
    return bool(newline) and not ends and bool(following) and not following.startswith(b"{")


def _delimiter(content: bytes) -> Delimiter:
    """What separates the most columns in the first line. Excel may write it there itself, as `sep=;`."""
    line = _LINE_END.split(content, maxsplit=1)[0].decode(errors="replace")
    if line.lower().startswith("sep=") and line[4:5] in _DELIMITERS:
        return next(each for each in _DELIMITERS if each == line[4])
    return max(_DELIMITERS, key=_QUOTED.sub("", line).count)
