"""JSONL and arrays are cut into rows with the right lines, whatever the size of the buffer."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import jsonrows
from core.data.jsonrows import read_array, read_jsonl
from core.data.records import MAX_ROW_BYTES, Record
from core.schemas.data import RowError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\{[,', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def array(content: bytes) -> list[Record | RowError]:
    return list(read_array(io.BytesIO(content)))


def jsonl(content: bytes) -> list[Record | RowError]:
    return list(read_jsonl(io.BytesIO(content)))


def error(items: list[Record | RowError]) -> RowError:
    assert isinstance(items[-1], RowError)
    return items[-1]


@given(st.lists(json_values, max_size=6), st.sampled_from([None, 1, "\t"]), st.booleans(), st.integers(1, 40))
def test_an_array_gives_what_the_standard_library_gives(
    values: list[object], indent: int | str | None, escape: bool, chunk: int
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=escape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonrows, "CHUNK_BYTES", chunk)
        found = array(text.encode())
    assert [item.value for item in found if isinstance(item, Record)] == values
    assert len(found) == len(values)


@given(st.lists(json_values, min_size=1, max_size=6), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_lines_of_an_array_are_those_on_which_rows_begin(values: list[object], blanks: list[int]) -> None:
    line = 1
    expected: list[int] = []
    pieces = ["["]
    for index, (value, blank) in enumerate(zip(values, blanks, strict=False)):
        body = json.dumps(value, indent=1)
        expected.append(line + blank)
        line += blank + body.count("\n") + 1
        pieces.append("\n" * blank + body + "\n" + ("," if index + 1 < len(values) else ""))
    assert [item.line for item in array("".join([*pieces, "]"]).encode())] == expected


def test_rows_that_begin_on_one_line_have_different_numbers() -> None:
    assert [item.line for item in array(b'[{"a": 1}, {"a": 2},\n{"a": 3}, {"a": 4},\n\n\n\n\n{"a": 5}]')] == [
        1,
        2,
        3,
        4,
        7,
    ]


@given(st.lists(json_values, max_size=6), st.sampled_from(["\n", "\r\n", "\n\n \t\n"]))
def test_jsonl_gives_one_record_a_line(values: list[object], end: str) -> None:
    found = jsonl("".join(json.dumps(value) + end for value in values).encode())
    assert [item.value for item in found if isinstance(item, Record)] == values
    assert [item.line for item in found] == [1 + index * end.count("\n") for index in range(len(values))]


@pytest.mark.parametrize(
    ("content", "line", "column", "says"),
    [
        (b'[{"a": 1},\n {"a": 2,}\n]', 2, "character 10", "property name"),
        (b'[{"a": 1},\n {"a":\n   nope}\n]', 3, "character 4", "Expecting value"),
        (b'[{"a": 1} {"a": 2}]', 1, "character 11", "Extra data"),
        (b'[{"a": 1}, ]', 1, "character 12", "comma without a row"),
        (b"[,]", 1, "character 2", "comma without a row"),
        (b'[{"a": 1}\n', 2, "character 1", "not closed"),
        (b'[{"a": 1},\n {"a": "b', 2, "character 8", "Unterminated string"),
        (b'[{"a": "b}, {"c": "d"}]', 1, "character 15", "delimiter"),
        (b'[{"a": 1}]\n, {"a": 2}', 2, "character 1", "after the end"),
        (b"[1}]", 1, "character 3", "Extra data"),
        (b"[" + b"[" * 5000 + b"]" * 5001, 1, None, "nested too deeply"),
    ],
)
def test_a_broken_array(content: bytes, line: int, column: str | None, says: str) -> None:
    found = error(array(content))
    assert (found.line, found.column) == (line, column)
    assert says in found.reason
    assert "The rest of the file was not read" in found.reason


def test_rows_before_the_break_are_given() -> None:
    assert [type(item) for item in array(b'[{"a": 1}, {"a": 2}, {]}')] == [Record, Record, RowError]


def test_a_bad_value_does_not_stop_an_array() -> None:
    found = array(b'[{"a": NaN}, {"a": 1, "a": 2}, {"a": "\xff"}, {"a": 1}]')
    assert [type(item) for item in found] == [RowError, RowError, RowError, Record]


def test_bad_utf8_has_line_and_byte() -> None:
    found = error(array(b'[\n {"a": "x",\n  "b": "\xe9t\xe9"}]'))
    assert (found.line, found.column) == (3, "byte 9")
    found = error(array(b'[ {"a": "\xff"}]'))
    assert (found.line, found.column) == (1, "byte 10")
    found = error(jsonl(b'{"a": "b"}\n  {"a": "\xe9"}\n'))
    assert (found.line, found.column) == (2, "byte 10")
    assert "0xe9" in found.reason


def test_broken_lines_do_not_stop_jsonl() -> None:
    found = jsonl(b'{"a": 1}\n{"a": \n\n{"a": 2}, \n{"a": 3}')
    assert [(type(item), item.line) for item in found] == [(Record, 1), (RowError, 2), (RowError, 4), (Record, 5)]
    assert isinstance(found[2], RowError)
    assert "ends with a comma" in found[2].reason


def test_a_line_over_the_limit_is_refused_and_passed_over() -> None:
    long = b'{"a": "' + b"x" * MAX_ROW_BYTES + b'"}'
    found = jsonl(long + b"\n" + b'{"a": 1}\n' + long)
    assert [(type(item), item.line) for item in found] == [(RowError, 1), (Record, 2), (RowError, 3)]
    assert "longer than 4 MiB" in error(found).reason


def test_the_limit_on_a_row_is_exact_in_an_array() -> None:
    fits = b'"' + b"x" * (MAX_ROW_BYTES - 2) + b'"'
    assert [type(item) for item in array(b"[1,\n" + fits + b", 2]")] == [Record, Record, Record]
    found = array(b"[1,\n\n " + fits[:-1] + b'x", 2]')
    assert [(type(item), item.line) for item in found] == [(Record, 1), (RowError, 3)]
    assert "longer than 4 MiB" in error(found).reason


def test_an_open_quote_does_not_read_the_whole_file() -> None:
    stream = io.BytesIO(b'[{"a": "' + b"x" * (8 * 2**20))
    assert "longer than 4 MiB" in error(list(read_array(stream))).reason
    assert stream.tell() < 5 * 2**20
