"""Any table of rows, whatever its format, and the errors of a whole file.

Covers: all formats behind one function, the limit on rows, files without rows, rows collected into one error.
Not here: how one format is parsed (core.data.jsonrows, core.data.csvrows, core.data.arrowrows), what a row must
contain.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TypeVar, assert_never

from core.data.arrowrows import read_arrow, read_parquet
from core.data.csvrows import read_csv
from core.data.fields import InvalidFile, InvalidRow
from core.data.jsonrows import read_array, read_jsonl, read_objects
from core.data.records import Header, Record
from core.data.sniff import SourceFormat
from core.data.streams import unreadable_file
from core.errors import InvalidDataset, TooLarge
from core.schemas.data import RowError

MAX_REPORTED = 100
"""Invalid rows that an error lists; the rest are counted."""
_CSV_HINT = "The file begins with neither { nor [, so it was read as CSV with columns separated by "
_DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}

Row = TypeVar("Row")


def read_table(
    stream: BinaryIO,
    source: SourceFormat,
    take_header: Callable[[Header], Record | None],
    convert: Callable[[Record], Row],
    *,
    max_rows: int | None = None,
) -> Iterator[Row | RowError]:
    """The converted rows of an open file, and an error for each invalid row.

    Args:
        stream: the file, as `core.data.sniff.sniff` leaves it.
        source: what `sniff` returned.
        take_header: receives the header of a CSV file. Returns it as a row if it is one, and None otherwise. Raises
            `InvalidRow` if its columns cannot be used.
        convert: converts a row. Raises `InvalidRow` if it is invalid, and `InvalidFile` if that ends the reading.
        max_rows: rows that the file may have.

    Raises:
        InvalidDataset: the file has no rows, its header is wrong, or `convert` raised `InvalidFile`.
        TooLarge: it has more than `max_rows` rows.
    """
    count = 0
    for item in _read(stream, source):
        row = _take_header(item, take_header, source) if isinstance(item, Header) else item
        if row is None:
            continue
        count += 1
        if max_rows is not None and count > max_rows:
            raise TooLarge(f"The file has more than {max_rows} rows. Send a file with fewer rows.", param="file")
        yield row if isinstance(row, RowError) else _convert(row, convert)
    if count == 0:
        raise unreadable_file(1, "the file contains no rows")


def _read(stream: BinaryIO, source: SourceFormat) -> Iterator[Header | Record | RowError]:
    match source.file_format:
        case "jsonl":
            return read_jsonl(stream)
        case "json":
            return read_array(stream)
        case "json_objects":
            return read_objects(stream)
        case "csv":
            return read_csv(stream, source.delimiter or ",")
        case "parquet":
            return read_parquet(stream)
        case "arrow":
            return read_arrow(stream)
        case _:
            assert_never(source.file_format)


def _take_header(header: Header, take_header: Callable[[Header], Record | None], source: SourceFormat) -> Record | None:
    try:
        return take_header(header)
    except InvalidRow as error:  # every row would be wrong
        reason = f"{error.reason}. {_CSV_HINT}{_DELIMITER_NAMES[source.delimiter or ',']}"
        raise _invalid_rows([InvalidRow(error.column, reason).at(header.line)], 1) from None


def _convert(record: Record, convert: Callable[[Record], Row]) -> Row | RowError:
    try:
        return convert(record)
    except InvalidFile as error:
        raise _invalid_rows([error.at(record.line)], 1) from None
    except InvalidRow as error:
        return error.at(record.line)


def only_valid(rows: Iterable[Row | RowError]) -> Iterator[Row]:
    """The valid rows.

    Raises:
        InvalidDataset: at the end, if any row is invalid: with the first `MAX_REPORTED` errors and their count.
    """
    errors: list[RowError] = []
    count = 0
    for row in rows:
        if not isinstance(row, RowError):
            yield row
            continue
        count += 1
        if len(errors) < MAX_REPORTED:
            errors.append(row)
    if errors:
        raise _invalid_rows(errors, count)


@contextmanager
def error_code(code: str) -> Generator[None]:
    """Give every `InvalidDataset` of the block this code."""
    try:
        yield
    except InvalidDataset as error:
        raise InvalidDataset(error.message, errors=error.errors, count=error.count, code=code) from error


def _invalid_rows(errors: Sequence[RowError], count: int) -> InvalidDataset:
    first = errors[0]
    place = f"line {first.line}" + (f", {first.column}" if first.column else "")
    total = "1 row is invalid" if count == 1 else f"{count} rows are invalid"
    return InvalidDataset(f"{place}: {first.reason}; {total}.", errors=tuple(errors), count=count)
