"""The format is told from the bytes, and what is no dataset is named."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from core.data.sniff import HEAD_BYTES, sniff
from core.errors import InvalidDataset

Write = Callable[[bytes | str], Path]


@pytest.mark.parametrize(
    ("content", "expected", "first"),
    [
        (b'{"prompt": "a", "completion": "b"}\n', "jsonl", b"{"),
        (b'\n\r\n \t{"prompt": "a"}', "jsonl", b"\n"),
        (b"[]", "json", b"["),
        (b"\n\n [\n", "json", b"\n"),
        (b"prompt,completion\na,b\n", "csv", b"p"),
        (b'"prompt","completion"\n', "csv", b'"'),
        (b"\xef\xbb\xbf[1]", "json", b"["),
        (b"\xef\xbb\xbfprompt,completion\n", "csv", b"p"),
        (b" " * (HEAD_BYTES + 5) + b"[", "json", b" "),
    ],
)
def test_format_by_content(write: Write, content: bytes, expected: str, first: bytes) -> None:
    with write(content).open("rb") as stream:
        assert sniff(stream) == expected
        assert stream.read(1) == first


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
        (gzip.compress(b"prompt,completion", mtime=0), "gzip"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"PAR1....", "Parquet"),
        ("prompt,completion".encode("utf-16"), "UTF-16"),
        ("prompt,completion".encode("utf-16-le"), "binary, or text in another encoding"),
        (b'{\n  "prompt": "a",\n  "completion": "b"\n}\n', "spread over several lines"),
        (b'\n{"Drug": [\n "a"]}\n', "spread over several lines"),
    ],
)
def test_what_is_no_dataset(write: Write, content: bytes, says: str) -> None:
    with write(content).open("rb") as stream, pytest.raises(InvalidDataset, match=says) as caught:
        sniff(stream)
    assert "Send UTF-8 text" in caught.value.message
    assert caught.value.count == len(caught.value.errors) == 1


def test_the_lone_objects_line_is_named(write: Write) -> None:
    with write(b'\n\n{\n "a": 1}').open("rb") as stream, pytest.raises(InvalidDataset) as caught:
        sniff(stream)
    assert caught.value.errors[0].line == 3


def test_a_broken_first_row_is_left_to_the_reader(write: Write) -> None:
    with write(b'{"prompt": "a\n{"prompt": "b", "completion": "c"}\n').open("rb") as stream:
        assert sniff(stream) == "jsonl"
