"""A dataset file as a stream of conversations: validates it, or loads it.

Covers: one parser for the API (which may not reach torch) and for the worker, rows that are left out, counts of what
is not used. Not here: formats (core.data.tables), layouts (core.data.layouts), tokens (core.data.template).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.fields import InvalidRow, listed
from core.data.layouts import as_row, detect, guess_columns, needed_columns, parse_row, reject_repeated
from core.data.records import Header, Record
from core.data.sniff import SourceFormat, sniff
from core.data.streams import open_utf8, unreadable_file
from core.data.tables import only_valid, read_table
from core.schemas.data import ColumnMap, DatasetSummary, Message, RowError, RowFormat

_MAX_IGNORED = 50


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of a dataset."""

    messages: tuple[Message, ...]
    """The turns. The last one is the assistant's."""
    line: int
    """Line of the file on which the row begins, from 1; 0 if it is in no file."""
    tools: tuple[dict[str, Any], ...] = ()
    """Definitions of the tools that the assistant may call, as JSON schemas."""
    whole: bool = False
    """The row is a text without turns: all of it is trained on, without a chat template."""


class Rows:
    """Iterates once over a dataset file: a `Conversation` or a `RowError` for each row that is not left out.

    Iterating raises:
        InvalidDataset: the file cannot be read as rows at all: it is empty, binary or in an unknown layout.
        TooLarge: the file has more than `max_rows` rows.
    """

    source: SourceFormat
    """Format of the file; set when the iteration begins."""

    def __init__(self, path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> None:
        self._path = path
        self.columns = columns
        """The columns that the upload names, or that are recognised by their usual names."""
        self._max_rows = max_rows
        self._row_format: RowFormat | None = "mapped" if columns else None
        self._lower_case = False
        self.left_out = 0
        """Number of rows whose own marks exclude them from training."""
        self.cut_turns = 0
        """Number of turns without an answer at the end of rows."""
        self.ignored: Counter[str] = Counter()
        """Number of rows with each field that is not used."""

    @property
    def row_format(self) -> RowFormat:
        """Layout of the rows; known once a row has been read."""
        if self._row_format is None:
            raise RuntimeError("no row has been read: iterate first")
        return self._row_format

    def __iter__(self) -> Iterator[Conversation | RowError]:
        with open_utf8(self._path) as stream:
            self.source = sniff(stream)
            rows = read_table(stream, self.source, self._take_header, self._convert, max_rows=self._max_rows)
            yield from (row for row in rows if row is not None)

    def _take_header(self, header: Header) -> None:
        """Set the layout of a CSV file."""
        reject_repeated(header.names)
        self._row_format = self._row_format or self._detect(header.names)
        if self._lower_case:
            reject_repeated(name.lower() for name in header.names)
        for name in needed_columns(self._row_format, self.columns):
            if name not in header.names and not self._lower_case:
                raise InvalidRow(name, f"the header lacks this column; it has {listed(header.names)}")

    def _detect(self, names: tuple[str, ...]) -> RowFormat:
        """The layout that the columns make, as they are or in lower case, or by usual names of prompt and answer."""
        try:
            return detect(names)
        except InvalidRow:
            lower = tuple(name.lower() for name in names)
            with suppress(InvalidRow):
                layout = detect(lower)
                self._lower_case = True
                return layout
            self.columns = guess_columns(names) or guess_columns(lower)
            if self.columns is None:
                raise
            self._lower_case = self.columns.prompt not in names
            return "mapped"

    def _convert(self, record: Record) -> Conversation | None:
        value = as_row(record.value)
        self._row_format = self._row_format or self._detect(tuple(value))
        if self._lower_case:
            value = {name.lower(): found for name, found in value.items()}
        row = parse_row(value, self._row_format, self.columns)
        self.cut_turns += row.cut
        for name in row.ignored:
            if name in self.ignored or len(self.ignored) < _MAX_IGNORED:
                self.ignored[name] += 1
        if not row.messages:
            self.left_out += 1
            return None
        return Conversation(row.messages, record.line, row.tools, row.whole)


def validate(path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> DatasetSummary:
    """Read a whole file and summarise it. Memory does not grow with the file.

    Raises:
        InvalidDataset: a row is invalid; lists the first `MAX_REPORTED` invalid rows and counts all.
        TooLarge: the file has more than `max_rows` rows.
    """
    rows = Rows(path, columns, max_rows=max_rows)
    count = turns = assistant_turns = characters = longest = 0
    for conversation in only_valid(rows):
        count += 1
        turns += len(conversation.messages)
        assistant_turns += sum(message.role == "assistant" and message.trained for message in conversation.messages)
        size = sum(len(message.content) for message in conversation.messages)
        characters += size
        longest = max(longest, size)
    if not count:
        raise unreadable_file(1, "every row is left out, because its weight is 0 or its train is false")
    return DatasetSummary(
        file_format=rows.source.file_format,
        delimiter=rows.source.delimiter,
        row_format=rows.row_format,
        rows=count,
        turns=turns,
        assistant_turns=assistant_turns,
        characters=characters,
        longest_row_characters=longest,
        left_out=rows.left_out,
        cut_turns=rows.cut_turns,
        ignored=dict(rows.ignored),
        columns=rows.columns,
    )


def load(path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> list[Conversation]:
    """All conversations of a file, in file order. Raises what `validate` raises."""
    return list(only_valid(Rows(path, columns, max_rows=max_rows)))
