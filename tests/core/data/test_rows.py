"""Whole files: the same conversations from every format, every bad row reported, nothing huge in memory."""

import csv
import io
import json
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import MAX_REPORTED, Conversation, Rows, load, validate
from core.data.fields import is_blank
from core.errors import InvalidDataset, TooLarge
from core.schemas.data import ColumnMap, DatasetSummary, RowError

Write = Callable[[bytes | str], Path]
LIMIT = 1000
ROOT = Path(__file__).parents[3]

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda value: not is_blank(value) and value not in ("nan", "NaN")  # empty cells of CSV files
)
pairs = st.lists(st.tuples(text, text), min_size=1, max_size=5)


def said(rows: list[Conversation]) -> list[list[tuple[str, str]]]:
    return [[(message.role, message.content) for message in row.messages] for row in rows]


def refusal(path: Path, columns: ColumnMap | None = None) -> InvalidDataset:
    with pytest.raises(InvalidDataset) as caught:
        validate(path, columns, max_rows=LIMIT)
    return caught.value


@settings(max_examples=40)
@given(pairs)
def test_every_format_and_layout_gives_the_same_conversations(rows: list[tuple[str, str]]) -> None:
    expected = [[("user", prompt), ("assistant", completion)] for prompt, completion in rows]
    plain = [{"prompt": prompt, "completion": completion} for prompt, completion in rows]
    alpaca = [{"instruction": prompt, "input": "", "output": completion} for prompt, completion in rows]
    chats = [{"messages": [{"role": role, "content": content} for role, content in turns]} for turns in expected]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("q", "a"), *rows])
    mapped = ColumnMap(prompt="q", completion="a")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        for number, (content, columns) in enumerate(
            [
                *[("".join(json.dumps(row) + "\n" for row in shape), None) for shape in (plain, alpaca, chats)],
                *[(json.dumps(shape, indent=1, ensure_ascii=False), None) for shape in (plain, alpaca, chats)],
                (table.getvalue(), mapped),
            ]
        ):
            path.write_bytes((b"\xef\xbb\xbf" if number % 2 else b"") + content.encode())
            assert said(load(path, columns, max_rows=LIMIT)) == expected


def test_summary(write: Write) -> None:
    chats = [
        [("system", "abc"), ("user", "de"), ("assistant", "f")],
        [("user", "é🙂"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    ]
    rows = [{"messages": [{"role": role, "content": content} for role, content in turns]} for turns in chats]
    assert validate(write("\n".join(map(json.dumps, rows))), max_rows=LIMIT) == DatasetSummary(
        file_format="jsonl",
        row_format="messages",
        rows=2,
        turns=7,
        assistant_turns=3,
        characters=11,
        longest_row_characters=6,
    )


def test_lines_of_conversations(write: Write) -> None:
    path = write('[\n{"prompt": "a",\n "completion": "b"},\n\n{"prompt": "c", "completion": "d"}]')
    assert [row.line for row in load(path, max_rows=LIMIT)] == [2, 5]


def test_every_bad_row_is_reported(write: Write) -> None:
    good = '{"prompt": "a", "completion": "b"}\n'
    bad = [
        '{"prompt": "a"}\n',
        "nope\n",
        '{"prompt": "a", "completion": ""}\n',
        '{"instruction": "a", "output": "b"}\n',
    ]
    error = refusal(write(good + good.join(bad)))
    assert [(row.line, row.column) for row in error.errors] == [
        (2, "completion"),
        (4, "character 1"),
        (6, "completion"),
        (8, "prompt"),
    ]
    assert error.count == 4
    assert error.message.startswith("line 2, completion: the column is missing")
    assert error.message.endswith("; 4 rows are invalid.")
    assert "this row has `instruction` and `output`" in error.errors[3].reason


def test_only_the_first_hundred_are_kept_and_all_are_counted(write: Write) -> None:
    error = refusal(write('{"prompt": "a", "completion": "b"}\n' + "nope\n" * 250))
    assert len(error.errors) == MAX_REPORTED == 100
    assert error.count == 250
    assert pickle.loads(pickle.dumps(error)).errors == error.errors  # noqa: S301


def test_load_refuses_what_validate_refuses(write: Write) -> None:
    with pytest.raises(InvalidDataset, match="line 1, completion"):
        load(write('{"prompt": "a", "completion": 1}\n'), max_rows=LIMIT)


def test_read_rows_gives_values_for_both(write: Write) -> None:
    rows = Rows(write('x\n{"prompt": "a", "completion": "b"}\n[1]\n'), max_rows=LIMIT)
    with pytest.raises(RuntimeError, match="iterate first"):
        _ = rows.row_format
    # The first line makes this a CSV file, whose header has no known columns.
    with pytest.raises(InvalidDataset, match="was read as CSV"):
        list(rows)
    rows = Rows(write('{x\n{"prompt": "a", "completion": "b"}\n[1]\n'), max_rows=LIMIT)
    assert [(type(row), row.line) for row in rows] == [(RowError, 1), (Conversation, 2), (RowError, 3)]
    assert (rows.source.file_format, rows.row_format) == ("jsonl", "prompt_completion")


@pytest.mark.parametrize(
    ("content", "line", "column", "says"),
    [
        ("", 1, None, "empty"),
        ("[]", 1, None, "no rows"),
        ("prompt,completion\n", 1, None, "no rows"),
        ("\n\nfrage,antwort\n1,2\n", 3, None, "no known layout has the columns 'frage', 'antwort'"),
        ("prompt,completion,prompt\na,b,c\n", 1, "prompt", "contains this column twice"),
        ("messages\n[]\n", 2, "messages", "no assistant turn"),
        ("Hello, this is a letter.\n", 1, None, "begins with neither { nor ["),
        ('"just a text"', 1, None, "CSV with columns separated by commas"),
        ('{"Drug": ["a", "b"]}', 1, None, "no known layout has the columns 'Drug'"),
        ('\n{"data": [{"prompt": "a", "completion": "b"}]}\n', 2, None, "no known layout"),
        ('[{"role": "user", "content": "a"}]', 1, None, "no known layout"),
        ('["a", "b"]', 1, None, "the row is text"),
        ("[[1]]", 1, None, "the row is a list"),
        ('{"prompt": "\\ud800", "completion": "b"}', 1, "prompt", "surrogate"),
        ('{"prompt": "\\u0000", "completion": "b"}', 1, "prompt", "NUL"),
        ("prompt,completion\na,\n", 2, "completion", "empty"),
        ("prompt,completion\n\0,b\n", 2, "prompt", "NUL"),
        ('{"a": ' * 60_000, 1, None, "nested too deeply"),
        ("[" * 60_000, 1, None, "nested too deeply"),
        ('{"prompt": "a", "completion": ' + "1" * 5000 + "}", 1, None, "5000 digits"),
    ],
)
def test_bad_files(write: Write, content: str, line: int, column: str | None, says: str) -> None:
    error = refusal(write(content))
    assert (error.errors[0].line, error.errors[0].column) == (line, column)
    assert says in error.errors[0].reason
    assert error.message.startswith(f"line {line}")
    error.errors[0].model_dump_json()


def test_a_header_must_have_the_mapped_columns(write: Write) -> None:
    columns = ColumnMap(prompt="question", completion="answer")
    error = refusal(write("question,reply\n1,2\n"), columns)
    assert error.errors[0].column == "answer"
    assert "it has 'question', 'reply'" in error.errors[0].reason
    assert said(load(write("id,question,answer\n0,1,2\n"), columns, max_rows=1)) == [
        [("user", "1"), ("assistant", "2")]
    ]


@pytest.mark.parametrize("bad", ["", "nope\n"])
def test_too_many_rows(write: Write, bad: str) -> None:
    row = '{"prompt": "a", "completion": "b"}\n'
    path = write(row * 2 + (bad or row))
    with pytest.raises(TooLarge, match="more than 2 rows"):
        validate(path, max_rows=2)
    if not bad:
        assert validate(path, max_rows=3).rows == 3


@pytest.mark.parametrize("shape", ["jsonl", "json", "csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, shape: str) -> None:
    row = json.dumps({"prompt": "x" * 500, "completion": "y" * 500})
    line, head, end = {
        "jsonl": (row + "\n", "", ""),
        "json": (row + ",\n", "[", row + "]"),
        "csv": ("x" * 500 + "," + "y" * 500 + "\n", "prompt,completion\n", ""),
    }[shape]
    path = tmp_path / "upload"
    path.write_text(head + line * 8000 + end)
    tracemalloc.start()
    try:
        assert validate(path, max_rows=10_000).rows >= 8000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 8e6
    assert peak < 2e6


def test_the_face_reaches_no_torch() -> None:
    code = "import sys, core.data; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("query,response", ColumnMap(prompt="query", completion="response")),
        ("Prompt,Response", ColumnMap(prompt="prompt", completion="response")),
        ("id,question,answer,context", ColumnMap(prompt="question", completion="answer", extra="context")),
        ("input,output,source", ColumnMap(prompt="input", completion="output")),
    ],
)
def test_usual_names_of_a_prompt_and_its_answer_are_recognised_and_shown(
    write: Write, header: str, columns: ColumnMap
) -> None:
    names = header.split(",")
    path = write(f"{header}\n{','.join(f'a {name}' for name in names)}\n")
    summary = validate(path, max_rows=5)
    assert (summary.row_format, summary.columns) == ("mapped", columns)
    (row,) = load(path, max_rows=5)
    lower = {name.lower(): f"a {name}" for name in names}
    prompt = lower[str(columns.prompt)] + (f"\n\n{lower[columns.extra]}" if columns.extra else "")
    assert [message.content for message in row.messages] == [prompt, lower[str(columns.completion)]]


def test_gsm8k(public_data: Path) -> None:
    columns = ColumnMap(prompt="question", completion="answer")
    summary = validate(public_data / "gsm8k" / "train.jsonl", columns, max_rows=10_000)
    assert (summary.file_format, summary.row_format, summary.rows) == ("jsonl", "mapped", 7473)
    without = validate(public_data / "gsm8k" / "train.jsonl", max_rows=10_000)
    assert without == summary


def test_chatdoctor(public_data: Path) -> None:
    path = public_data / "medical_chatdoctor5k" / "chatdoctor5k.json"
    rows = load(path, max_rows=10_000)
    expected = json.loads(path.read_bytes())
    assert len(rows) == len(expected) == 5452
    for row, source in zip(rows, expected, strict=True):
        assert row.messages[0].content == f"{source['instruction']}\n\n{source['input']}"
        assert row.messages[1].content == source["output"]
    lines = path.read_text().split("\n")
    assert all(lines[row.line - 1].strip() == "{" for row in rows)


def test_a_table_of_behaviours_has_no_answers(public_data: Path) -> None:
    assert "column map" in refusal(public_data / "harmbench" / "harmbench_behaviors_text_all.csv").message


def test_xstest_is_read_as_it_is(public_data: Path) -> None:
    summary = validate(public_data / "xstest" / "xstest_v2_completions_gpt4.csv", max_rows=LIMIT)
    assert (summary.file_format, summary.row_format, summary.rows) == ("csv", "prompt_completion", 450)
