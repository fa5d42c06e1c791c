"""The format is recognised by the bytes, and a file that is not a dataset is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.data.sniff import SourceFormat, sniff
from core.data.streams import HEAD_BYTES
from core.errors import InvalidDataset

Write = Callable[[bytes | str], Path]


@pytest.mark.parametrize(
    ("content", "expected", "first"),
    [
        (b'{"prompt": "a", "completion": "b"}\n', "jsonl", b"{"),
        (b'\n\r\n \t{"prompt": "a"}', "jsonl", b"\n"),
        (b'{\n  "prompt": "a",\n  "completion": "b"\n}\n', "json_objects", b"{"),
        (b'\n{"Drug": [\n "a"]}\n', "json_objects", b"\n"),
        (b'"{\\"prompt\\": 1}"\n', "jsonl", b'"'),
        (b"[]", "json", b"["),
        (b"\n\n [\n", "json", b"\n"),
        (b"prompt,completion\na,b\n", "csv", b"p"),
        (b'"prompt","completion"\n', "csv", b'"'),
        (b"\xef\xbb\xbf[1]", "json", b"["),
        (b"\xef\xbb\xbfprompt,completion\n", "csv", b"p"),
        (b" " * (HEAD_BYTES + 5) + b"[", "json", b" "),
        (b"PAR1....", "parquet", b"P"),
        (b"ARROW1....", "arrow", b"A"),
        (b"\xff\xff\xff\xff....", "arrow", b"\xff"),
    ],
)
def test_format_by_content(write: Write, content: bytes, expected: str, first: bytes) -> None:
    with write(content).open("rb") as stream:
        assert sniff(stream).file_format == expected
        assert stream.read(1) == first


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("prompt,completion", ","),
        ("prompt;completion", ";"),
        ("prompt\tcompletion\r", "\t"),
        ('"a;b;c;d",completion', ","),
        ("prompt", ","),
        ("sep=;\r", ";"),
    ],
)
def test_delimiter_by_header(write: Write, header: str, delimiter: str) -> None:
    with write(f"{header}\nx\n").open("rb") as stream:
        assert sniff(stream) == SourceFormat("csv", delimiter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\n \t\r\n", "only blank lines"),
        (b"\n" * (HEAD_BYTES + 1), "only blank lines"),
        (b"\x00\x01\x02\xff", "binary"),
        (bytes(range(256)) * 20, "binary"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00", "binary"),
        (b"PK\x03\x04rest", "Excel"),
        (b"\xd0\xcf\x11\xe0rest", "Excel"),
        (b"%PDF-1.7", "PDF"),
        (b"SQLite format 3\0", "SQLite"),
    ],
)
def test_a_file_that_is_not_a_dataset(write: Write, content: bytes, says: str) -> None:
    with write(content).open("rb") as stream, pytest.raises(InvalidDataset, match=says) as caught:
        sniff(stream)
    assert "Send text with one JSON object on each line" in caught.value.message
    assert caught.value.count == len(caught.value.errors) == 1


def test_a_broken_first_row_is_left_to_the_reader(write: Write) -> None:
    with write(b'{"prompt": "a\n{"prompt": "b", "completion": "c"}\n').open("rb") as stream:
        assert sniff(stream).file_format == "jsonl"
