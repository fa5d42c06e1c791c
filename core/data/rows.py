"""A dataset file as a stream of conversations, and the two things done with it: validate it, load it.

Covers: one parser for the API (which may not reach torch) and for the worker. Not here: how each format is read
(core.data.jsonrows, core.data.csvrows), layouts (core.data.layouts), tokens (core.data.template).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.data.csvrows import read_csv
from core.data.jsonrows import read_array, read_jsonl
from core.data.layouts import RefusedError, column_names, detect, listed, needed_columns, to_messages
from core.data.records import Header, Record
from core.data.sniff import refused_file, sniff
from core.errors import InvalidDataset, TooLarge
from core.schemas.data import ColumnMap, DatasetSummary, FileFormat, Message, RowError, RowFormat

MAX_REPORTED = 100
"""So many refused rows are shown; the rest are counted."""

CSV_HINT = "The file begins with neither { nor [, so it was read as CSV with commas between the columns"
"""Goes with complaints about a header."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row: what is said, and the line of the file on which it begins."""

    messages: tuple[Message, ...]
    """An optional system turn, then user and assistant turns by turns, the last an assistant's."""
    line: int
    """From 1."""


class Rows:
    """Iterates once over a dataset file; `file_format` and `row_format` are known after the first row."""

    def __init__(self, path: Path, columns: ColumnMap | None, max_rows: int) -> None:
        self._path = path
        self._columns = columns
        self._max_rows = max_rows
        self._file_format: FileFormat | None = None
        self._row_format: RowFormat | None = "mapped" if columns else None

    @property
    def file_format(self) -> FileFormat:
        """How the file is written; known once iteration has begun."""
        if self._file_format is None:
            raise RuntimeError("the file has not been opened: iterate first")
        return self._file_format

    @property
    def row_format(self) -> RowFormat:
        """The layout of the rows; known once a row has been read."""
        if self._row_format is None:
            raise RuntimeError("no row has been read: iterate first")
        return self._row_format

    def __iter__(self) -> Iterator[Conversation | RowError]:
        with self._path.open("rb") as stream:
            self._file_format = sniff(stream)
            count = 0
            for item in records(stream, self._file_format):
                if isinstance(item, Header):
                    self._take_header(item)
                    continue
                count += 1
                if count > self._max_rows:
                    raise TooLarge(
                        f"The file has more than {self._max_rows} rows, which is this server's limit: send fewer.",
                        param="file",
                    )
                yield item if isinstance(item, RowError) else self._convert(item)
            if count == 0:
                raise refused_file(1, "the file holds no rows")

    def _take_header(self, header: Header) -> None:
        """Settle the layout of a CSV file by its first line; a wrong header would make every row wrong."""
        names = header.names
        try:
            twice = next((name for index, name in enumerate(names) if name and name in names[:index]), None)
            if twice is not None:
                raise RefusedError(twice, "the header names this column twice; rename one of them")
            layout = self._row_format or detect(names)
            if layout == "messages":
                raise RefusedError("messages", "chat messages cannot be read from CSV; send them as JSONL")
            for name in needed_columns(layout, self._columns):
                if name not in names:
                    raise RefusedError(name, f"the header lacks this column; it has {listed(names)}")
        except RefusedError as error:
            reason = f"{error.reason}. {CSV_HINT}"
            raise refused_rows((RowError(line=header.line, column=error.column, reason=reason),), 1) from None
        self._row_format = layout

    def _convert(self, record: Record) -> Conversation | RowError:
        try:
            layout = self._row_format or self._first_layout(record)
            return Conversation(to_messages(record.value, layout, self._columns), record.line)
        except RefusedError as error:
            return RowError(line=record.line, column=error.column, reason=error.reason)

    def _first_layout(self, record: Record) -> RowFormat:
        """The layout of the first row that is an object; where it is unknown there is no sense in reading on."""
        names = column_names(record.value)
        try:
            self._row_format = detect(names)
        except RefusedError as error:
            raise refused_rows((RowError(line=record.line, column=None, reason=error.reason),), 1) from None
        return self._row_format


def records(stream: BinaryIO, file_format: FileFormat) -> Iterator[Header | Record | RowError]:
    """Rows before anything is known of their layout; those of CSV come after their header."""
    match file_format:
        case "jsonl":
            return read_jsonl(stream)
        case "json":
            return read_array(stream)
        case "csv":
            return read_csv(stream)


def read_rows(path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> Rows:
    """Every row of a file as a `Conversation`, or as the `RowError` that says why it is none.

    Iterating raises:
        InvalidDataset: the file as a whole cannot be read as rows: empty, binary, of no known layout.
        TooLarge: it has more than `max_rows` rows.
    """
    return Rows(path, columns, max_rows)


def validate(path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> DatasetSummary:
    """Read a whole file and say what is in it; memory does not grow with the file.

    Raises:
        InvalidDataset: with the first `MAX_REPORTED` refused rows and their count; not one row may be wrong.
        TooLarge: it has more than `max_rows` rows.
    """
    rows = read_rows(path, columns, max_rows=max_rows)
    count = turns = assistant_turns = characters = longest = 0
    for conversation in _only_valid(rows):
        count += 1
        turns += len(conversation.messages)
        assistant_turns += sum(message.role == "assistant" for message in conversation.messages)
        size = sum(len(message.content) for message in conversation.messages)
        characters += size
        longest = max(longest, size)
    return DatasetSummary(
        file_format=rows.file_format,
        row_format=rows.row_format,
        rows=count,
        turns=turns,
        assistant_turns=assistant_turns,
        characters=characters,
        longest_row_characters=longest,
    )


def load(path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> list[Conversation]:
    """All conversations of a file, in its order. Raises what `validate` raises."""
    return list(_only_valid(read_rows(path, columns, max_rows=max_rows)))


def _only_valid(rows: Rows) -> Iterator[Conversation]:
    """The conversations, then `InvalidDataset` if any row was none."""
    errors: list[RowError] = []
    count = 0
    for item in rows:
        if isinstance(item, Conversation):
            yield item
            continue
        count += 1
        if len(errors) < MAX_REPORTED:
            errors.append(item)
    if errors:
        raise refused_rows(tuple(errors), count)


def refused_rows(errors: tuple[RowError, ...], count: int) -> InvalidDataset:
    """The error for a file with these refused rows, and `count` of them in all."""
    first = errors[0]
    place = f"line {first.line}" + (f", {first.column}" if first.column else "")
    rows = "1 row was refused" if count == 1 else f"{count} rows were refused"
    return InvalidDataset(f"{place}: {first.reason}; {rows}.", errors=errors, count=count)
