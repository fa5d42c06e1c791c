"""Files in every compression, encoding and container give the same rows, and damaged ones are named."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.data import load, streams, validate
from core.errors import InvalidDataset, TooLarge

Write = Callable[[bytes | str], Path]

ROWS = [{"prompt": f"What is {n}?", "completion": f"Zwölf 🙂 {n}"} for n in range(3)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS)


def compress_zstd(data: bytes, folder: Path) -> bytes:
    path = folder / "packed"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)
    return path.read_bytes()


def arrow(*, file: bool) -> bytes:
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if file else pa.ipc.new_stream
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue().to_pybytes()


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    parquet.write_table(TABLE, sink)
    return sink.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "plain": (JSONL.encode(), "jsonl"),
    "gzip": (gzip.compress(JSONL.encode()), "jsonl"),
    "bzip2": (bz2.compress(JSONL.encode()), "jsonl"),
    "xz": (lzma.compress(JSONL.encode()), "jsonl"),
    "UTF-8 with a mark": (JSONL.encode("utf-8-sig"), "jsonl"),
    "UTF-16": (JSONL.encode("utf-16"), "jsonl"),
    "UTF-16 big endian": (b"\xfe\xff" + JSONL.encode("utf-16-be"), "jsonl"),
    "UTF-16 without a mark": (JSONL.encode("utf-16-le"), "jsonl"),
    "UTF-32": (JSONL.encode("utf-32"), "jsonl"),
    "UTF-16 in gzip": (gzip.compress(JSONL.encode("utf-16")), "jsonl"),
    "objects over several lines": ("\n".join(json.dumps(row, indent=2) for row in ROWS).encode(), "json_objects"),
    "Parquet": (parquet_bytes(), "parquet"),
    "Arrow file": (arrow(file=True), "arrow"),
    "Arrow stream": (arrow(file=False), "arrow"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_rows_are_the_same(write: Write, name: str) -> None:
    content, file_format = FILES[name]
    path = write(content)
    assert validate(path, max_rows=10).file_format == file_format
    found = [tuple(message.content for message in row.messages) for row in load(path, max_rows=10)]
    assert found == [(row["prompt"], row["completion"]) for row in ROWS]


def test_zstandard(write: Write, tmp_path: Path) -> None:
    path = write(compress_zstd(JSONL.encode(), tmp_path))
    assert validate(path, max_rows=10).rows == len(ROWS)


@pytest.mark.parametrize(
    "content",
    [
        'prompt;completion\r\n"a;b";c\r\n'.encode("utf-8-sig"),
        b"sep=;\r\nprompt;completion\r\na;b;c\r\n".replace(b"a;b;c", b'"a;b";c'),
        b"prompt\tcompletion\na;b\tc\n",
        b"Prompt,COMPLETION\na;b,c\n",
        b"prompt,completion\ra;b,c\r",
    ],
)
def test_spreadsheets(write: Write, content: bytes) -> None:
    ((question, answer),) = ([m.content for m in row.messages] for row in load(write(content), max_rows=10))
    assert (question, answer) == ("a;b", "c")


def test_an_empty_cell_of_a_spreadsheet(write: Write) -> None:
    path = write("instruction,input,output\na,nan,b\n")
    assert [message.content for message in load(path, max_rows=10)[0].messages] == ["a", "b"]
    with pytest.raises(InvalidDataset, match="line 2, output: the text is empty"):
        validate(write("instruction,input,output\na,x,NaN\n"), max_rows=10)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(JSONL.encode())[:-9], "the compressed file is damaged"),
        (lzma.compress(JSONL.encode())[:-40], "the compressed file is damaged"),
        (b"(\xb5/\xfdrest", "the compressed file is damaged"),
        (parquet_bytes()[:-3], "the Parquet file is damaged"),
        (arrow(file=True)[:40], "the Arrow file is damaged"),
        (b"\xff\xfe" + JSONL.encode("utf-16-le")[:-1], "not valid UTF-16"),
        (b"\xff\xfe\x00\xd8a\x00", "not valid UTF-16"),
        ("prompt,completion\nZw\xf6lf,b\n".encode("cp1252"), "is not UTF-8; save the file as UTF-8"),
    ],
    # The bytes hold the time at which they were compressed, and every test process must collect the same names.
    ids=["gzip", "xz", "Zstandard", "Parquet", "Arrow", "odd byte", "half surrogate pair", "Windows-1252"],
)
def test_damaged_files_are_named(write: Write, content: bytes, says: str) -> None:
    with pytest.raises(InvalidDataset, match=says):
        validate(write(content), max_rows=10)


def test_what_comes_out_of_a_compressed_file_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(TooLarge, match="unpacks to more than"):
        validate(write(gzip.compress(b"a" * 3_000_000)), max_rows=10)


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (JSONL.replace("}\n", "},\n"), 1, "the line ends with a comma"),
        (json.dumps(JSONL.splitlines()[0]) + "\n", 1, "each line is a string that contains JSON"),
        ('{\n "prompt": "a",\n "completion": "b"\n}\n{\n "prompt": "c"', 5, "not closed"),
        ('{\n "prompt": "a",\n "completion": "b"\n}\n{\n "prompt": c}\n', 6, "not valid JSON"),
        (",".join(f"c{n}" for n in range(2000)) + "\n1\n", 1, "2000 columns"),
    ],
)
def test_causes_are_named_with_their_line(write: Write, content: str, line: int, says: str) -> None:
    with pytest.raises(InvalidDataset) as caught:
        validate(write(content), max_rows=10)
    assert caught.value.errors[0].line == line
    assert says in caught.value.errors[0].reason


def test_marks_of_rows_can_leave_out_every_row(write: Write) -> None:
    path = write('{"prompt": "a", "completion": "b", "weight": 0}\n')
    with pytest.raises(InvalidDataset, match="every row is left out"):
        validate(path, max_rows=10)


def test_the_summary_counts_what_is_not_used(write: Write) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 1},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "weight": 0},
        {"messages": [{"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "a"},
                      {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}], "id": 2},
    ]  # fmt: skip
    summary = validate(write("".join(json.dumps(row) + "\n" for row in rows)), max_rows=10)
    assert (summary.rows, summary.left_out, summary.cut_turns, summary.assistant_turns) == (2, 1, 1, 2)
    assert summary.ignored == {"id": 2}
