"""What the readers of the three file formats hand on: rows as plain values, each with the line on which it begins.

Covers: the values, the limit on a row, bad UTF-8. Line numbers are those of an editor: a line ends at a line feed.
Not here: the reading (core.data.jsonrows, core.data.csvrows), what a row must hold (core.data.layouts).
"""

from dataclasses import dataclass

from core.schemas.data import RowError

MAX_ROW_BYTES = 4 * 2**20
"""A longer row is refused: no context window holds it, and memory stays bounded."""

CHUNK_BYTES = 256 * 1024
STOPPED = "The rest of the file was not read."
TOO_LONG = f"the row is longer than {MAX_ROW_BYTES // 2**20} MiB"


@dataclass(frozen=True, slots=True)
class Header:
    """The column names of a CSV file."""

    line: int
    """Line on which they stand."""
    names: tuple[str, ...]
    """In order, without the spaces around them."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row before anything is known of its layout."""

    line: int
    """Line on which it begins, from 1. Rows that begin on one line are numbered on from there, so that no two have the
    same number."""
    value: object
    """What stands there: any JSON value; of CSV always a dict of texts."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a file and the place of the first."""

    line: int
    """Line of the file, from 1."""
    column: int
    """Byte in that line, from 1."""
    raw: bytes
    """The bytes; they may hold line feeds."""


def not_utf8(item: Slice, error: UnicodeDecodeError) -> RowError:
    """The complaint about the first byte of `item` that is not UTF-8."""
    before = item.raw[: error.start]
    line = item.line + before.count(b"\n")
    column = error.start - before.rfind(b"\n") + (item.column - 1 if line == item.line else 0)
    reason = f"byte 0x{item.raw[error.start]:02x} is not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)"
    return RowError(line=line, column=f"byte {column}", reason=reason)
