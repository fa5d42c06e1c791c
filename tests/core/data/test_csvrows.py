"""CSV: rows with the lines they begin on, and quoting errors that end the reading."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.data.csvrows import read_csv
from core.data.records import MAX_ROW_BYTES, Header, Record
from core.schemas.data import RowError

fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.text('a,"\n\r')


def read(content: bytes | str) -> list[Header | Record | RowError]:
    return list(read_csv(io.BytesIO(content.encode() if isinstance(content, str) else content)))


@given(st.lists(st.tuples(fields, fields), max_size=6), st.booleans())
@example(rows=[("", "NaN"), ("nan", "x"), ("", "")], unix=False)
def test_round_trip_with_lines(rows: list[tuple[str, str]], unix: bool) -> None:
    text = io.StringIO(newline="")
    # With bare line feeds some versions of the writer leave a carriage return unquoted, so everything is quoted then.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL) if unix else csv.writer(text)
    writer.writerow(["a", "b"])
    lines: list[int] = []
    for row in rows:
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    header, *records = read(text.getvalue())
    assert header == Header(1, ("a", "b"))
    cells = [["" if cell in ("nan", "NaN") else cell for cell in row] for row in rows]
    expected = [Record(line, {"a": a, "b": b}) for line, (a, b) in zip(lines, cells, strict=True) if a or b]
    assert records == expected


def test_blank_lines_and_empty_cells_count_as_lines_and_not_as_rows() -> None:
    found = read("\n\na, b\n\n1,2\n,\n'',\n,,,\n".replace("'", chr(34)))
    assert found == [Header(3, ("a", "b")), Record(5, {"a": "1", "b": "2"})]


def test_a_ragged_row_is_one_error() -> None:
    _, short, good, long = read("a,b\n1\n1,2\n1,2,3\n")
    assert isinstance(short, RowError)
    assert isinstance(long, RowError)
    assert (short.line, long.line) == (2, 4)
    assert "1 fields, the header 2" in short.reason
    assert good == Record(3, {"a": "1", "b": "2"})


@pytest.mark.parametrize("row", ['"x"y,2', '"x', "x\ry,2"])
def test_bad_quoting_stops_with_the_rows_line(row: str) -> None:
    *_, last = read(f'a,b\n"1\n1",2\n{row}\n')
    assert isinstance(last, RowError)
    assert last.line == 4
    assert "not valid CSV" in last.reason
    assert "The rest of the file was not read" in last.reason


def test_bad_utf8_has_line_and_byte_and_reading_goes_on() -> None:
    _, bad, good = read(b'a,b\n"1\n\xe9",2\n3,4\n')
    assert isinstance(bad, RowError)
    assert (bad.line, bad.column) == (3, "byte 1")
    assert good == Record(4, {"a": "3", "b": "4"})


def test_bad_utf8_in_the_header_ends_it() -> None:
    assert [type(item) for item in read(b"a,\xff\n1,2\n")] == [RowError]


def test_a_long_field_is_read_and_a_row_over_the_limit_ends_it() -> None:
    _, row = read("a,b\n1," + "x" * 500_000)
    assert isinstance(row, Record)
    *_, last = read('a,b\n1,2\n3,"' + ("x" * 1000 + "\n") * (MAX_ROW_BYTES // 1000))
    assert isinstance(last, RowError)
    assert last.line == 3
    assert "a quote was left open" in last.reason
