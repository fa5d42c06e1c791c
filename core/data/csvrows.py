"""CSV with a header, read as a stream of rows.

Covers: quoted line breaks (a row's line is the one it begins on), ragged rows, open quotes, rows over the limit. Lines
of empty cells, which spreadsheets leave at the end, are no rows.
Not here: which columns are needed (core.data.layouts), which delimiter a file has (core.data.sniff).
"""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from core.data.records import MAX_ROW_BYTES, STOPPED, TOO_LONG, Header, Record, Slice, not_utf8
from core.schemas.data import RowError

_EMPTY = ("nan", "NaN")
"""How spreadsheets and pandas write an empty cell."""
_QUOTING = "Put fields with commas, quotes or line breaks in double quotes, and double each quote inside."


def read_csv(stream: BinaryIO, delimiter: str = ",") -> Iterator[Header | Record | RowError]:
    """The header, then a record or an error for every row; reading stops where quotes make rows unrecognisable.

    Raises the `csv` module's limit on a field, which is one for the whole process, to `MAX_ROW_BYTES`.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    lines = _Lines(stream)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    names: tuple[str, ...] | None = None
    while True:
        begin = lines.number + 1
        lines.start_row()
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"not valid CSV: {error}. {_QUOTING} {STOPPED}"
            yield RowError(line=begin, column=None, reason=reason)
            return
        except _RowTooLongError:
            yield RowError(line=begin, column=None, reason=f"{TOO_LONG}, or a quote was left open. {STOPPED}")
            return
        if lines.error is not None:
            yield lines.error
            if names is None:
                return
        elif not any(fields) or (names is None and fields[0].lower().startswith("sep=")):
            continue
        elif names is None:
            names = tuple(field.strip() for field in fields)
            yield Header(begin, names)
        elif len(fields) != len(names):
            reason = (
                f"the row has {len(fields)} fields, the header {len(names)}; quote fields that contain the delimiter"
            )
            yield RowError(line=begin, column=None, reason=reason)
        elif any(cells := ["" if field in _EMPTY else field for field in fields]):
            yield Record(begin, dict(zip(names, cells, strict=True)))


class _RowTooLongError(Exception):
    """Leaves the CSV reader in the middle of a row that has grown over the limit."""


class _Lines:
    """Decoded lines for the CSV reader, with their number and the first bad byte of the row at hand."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = 0
        self.number = 0
        self.error: RowError | None = None

    def start_row(self) -> None:
        """Forget the size and the error of the row before."""
        self._size = 0
        self.error = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_ROW_BYTES + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        self._size += len(raw)
        if self._size > MAX_ROW_BYTES:
            raise _RowTooLongError
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self.error = self.error or not_utf8(Slice(self.number, 1, raw), error)
            return raw.decode(errors="replace")
