"""A dataset file as a stream of conversations: validates it, or loads it.

Covers: one parser for the API (which may not reach torch) and for the worker. Not here: formats (core.data.tables),
layouts (core.data.layouts), tokens (core.data.template).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.data.layouts import InvalidRow, as_row, detect, listed, needed_columns, reject_repeated, to_messages
from core.data.records import Header, Record
from core.data.sniff import sniff
from core.data.tables import only_valid, read_table
from core.schemas.data import ColumnMap, DatasetSummary, FileFormat, Message, RowError, RowFormat


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of a dataset."""

    messages: tuple[Message, ...]
    """An optional system turn, then user and assistant turns in alternation. The last turn is the assistant's."""
    line: int
    """Line of the file on which the row begins, from 1."""


class Rows:
    """Iterates once over a dataset file: a `Conversation` or a `RowError` for each row.

    Iterating raises:
        InvalidDataset: the file cannot be read as rows at all: it is empty, binary or in an unknown layout.
        TooLarge: the file has more than `max_rows` rows.
    """

    file_format: FileFormat
    """Format of the file; set when the iteration begins."""

    def __init__(self, path: Path, columns: ColumnMap | None = None, *, max_rows: int) -> None:
        self._path = path
        self._columns = columns
        self._max_rows = max_rows
        self._row_format: RowFormat | None = "mapped" if columns else None

    @property
    def row_format(self) -> RowFormat:
        """Layout of the rows; known once a row has been read."""
        if self._row_format is None:
            raise RuntimeError("no row has been read: iterate first")
        return self._row_format

    def __iter__(self) -> Iterator[Conversation | RowError]:
        with self._path.open("rb") as stream:
            self.file_format = sniff(stream)
            yield from read_table(stream, self.file_format, self._take_header, self._convert, max_rows=self._max_rows)

    def _take_header(self, header: Header) -> None:
        """Set the layout of a CSV file."""
        reject_repeated(header.names)
        layout = self._row_format or detect(header.names)
        if layout == "messages":
            raise InvalidRow("messages", "chat messages cannot be read from CSV; send them as JSONL")
        for name in needed_columns(layout, self._columns):
            if name not in header.names:
                raise InvalidRow(name, f"the header lacks this column; it has {listed(header.names)}")
        self._row_format = layout

    def _convert(self, record: Record) -> Conversation:
        if self._row_format is None:
            self._row_format = detect(tuple(as_row(record.value)))
        return Conversation(to_messages(record.value, self._row_format, self._columns), record.line)


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
    """All conversations of a file, in file order. Raises what `validate` raises."""
    return list(only_valid(Rows(path, columns, max_rows=max_rows)))
