"""Benchmarks in the layout of MMLU are read as published, and a wrong row is told by line and column."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.data import MAX_REPORTED
from core.data.benchmarks import LETTERS, Question, read
from core.errors import InvalidDataset

Write = Callable[[bytes | str], Path]
GOOD: dict[str, object] = {"question": "Which?", "choices": ["one", "two", "three"], "answer": 1}
WANTED = Question("Which?", ("one", "two", "three"), 1)


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        GOOD | {"answer": "B"},
        GOOD | {"answer": " b "},
        GOOD | {"answer": "1"},
        GOOD | {"choices": {"B": "two", "A": "one", "C": "three"}, "answer": "B", "dataset": "quiz"},
        GOOD | {"question": " Which?\n", "choices": ["one ", "two", "three"]},
        GOOD | {"choices": '["one", "two", "three"]'},
        {"question": "Which?", "A": "one", "B": "two", "C": "three", "D": "", "answer": "B"},
    ],
)
def test_choices_and_answers_may_be_written_in_several_ways(write: Write, row: dict[str, object]) -> None:
    assert read(write(json.dumps(row)), most=10) == (WANTED,)
    assert read(write(json.dumps([row, row])), most=10) == (WANTED, WANTED)


@pytest.mark.parametrize(
    "text",
    [
        'question,choices,answer\nWhich?,"[""one"", ""two"", ""three""]",1\n',
        'answer,question,choices\nB,Which?,"{""A"": ""one"", ""B"": ""two"", ""C"": ""three""}"\n',
        "question,A,B,C,D,answer\nWhich?,one,two,three,,B\n",
    ],
)
def test_csv_has_choices_as_json_or_a_column_for_each(write: Write, text: str) -> None:
    assert read(write(text), most=10) == (WANTED,)


def test_only_the_first_rows_are_read(write: Write) -> None:
    text = json.dumps(GOOD)
    assert read(write(f"{text}\n{text}\n{text}\nnot JSON\n"), most=3) == (WANTED,) * 3
    with pytest.raises(InvalidDataset):
        read(write(f"{text}\n{text}\n{text}\nnot JSON\n"), most=4)


def test_as_many_choices_as_there_are_letters(write: Write) -> None:
    choices = [f"choice {letter}" for letter in LETTERS]
    (found,) = read(write(json.dumps(GOOD | {"choices": choices, "answer": "Z"})), most=1)
    assert (len(found.choices), found.answer) == (26, 25)


@pytest.mark.parametrize(
    ("change", "column", "reason"),
    [
        ({"question": ""}, "question", "the text is empty"),
        ({"question": 5}, "question", "expected text, found a number"),
        ({"choices": 5}, "choices", "expected a list of texts, or texts by letter, found a number"),
        ({"choices": "one"}, "choices", "expected a list of texts as JSON"),
        ({"choices": "3"}, "choices", "found a number"),
        ({"choices": ["one"]}, "choices", "expected 2 to 26 choices, found 1"),
        ({"choices": ["x"] * 27}, "choices", "expected 2 to 26 choices, found 27"),
        ({"choices": ["one", ""]}, "choices[1]", "the text is empty"),
        ({"choices": ["one", None]}, "choices[1]", "expected text, found null"),
        ({"choices": {"A": "one", "B": 2}}, "choices.B", "expected text, found a number"),
        ({"choices": {"A": "one", "C": "two"}}, "choices", "expected the letters A, B and so on, found 'A', 'C'"),
        ({"choices": {"text": ["x"], "label": ["A"]}}, "choices", "expected the letters A, B and so on"),
        ({"answer": 3}, "answer", "expected a letter from A to C or an index from 0 to 2, found 3"),
        ({"answer": -1}, "answer", "found -1"),
        ({"answer": "D"}, "answer", "found 'D'"),
        ({"answer": "3"}, "answer", "found '3'"),
        ({"answer": "one"}, "answer", "found 'one'"),
        ({"answer": ""}, "answer", "found ''"),
        ({"answer": "\u00b2"}, "answer", "found '\u00b2'"),
        ({"answer": True}, "answer", "found true or false"),
        ({"answer": 1.0}, "answer", "found a number"),
        ({"answer": None}, "answer", "found null"),
    ],
)
def test_a_wrong_row_is_told_by_line_and_column(
    write: Write, change: dict[str, object], column: str, reason: str
) -> None:
    path = write(f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD | change)}\n")
    with pytest.raises(InvalidDataset) as caught:
        read(path, most=10)
    (error,) = caught.value.errors
    assert (caught.value.code, caught.value.count) == ("invalid_benchmark", 1)
    assert (error.line, error.column) == (3, column)
    assert reason in error.reason
    assert caught.value.message.startswith(f"line 3, {column}: ")


@pytest.mark.parametrize("missing", ["question", "choices", "answer"])
def test_a_missing_column_is_told(write: Write, missing: str) -> None:
    row = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(InvalidDataset, match="the column is missing") as caught:
        read(write(json.dumps(row)), most=10)
    assert caught.value.errors[0].column == missing


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("question,choices\nWhich?,x\n", "answer", "the header lacks this column"),
        ("question,A,answer\nWhich?,x,A\n", "choices", "the header lacks this column"),
        ("question,choices,answer,answer\n", "answer", "contains this column twice"),
    ],
)
def test_a_wrong_header_is_told_once(write: Write, text: str, column: str, reason: str) -> None:
    with pytest.raises(InvalidDataset, match="read as CSV") as caught:
        read(write(text), most=10)
    assert (caught.value.errors[0].line, caught.value.errors[0].column) == (1, column)
    assert reason in caught.value.errors[0].reason


@pytest.mark.parametrize(
    ("content", "line"),
    [("", 1), ("\n\n", 1), ("question,choices,answer\n", 1), ("[]", 1), ("[5]", 1), (b"\x1f\x8b", 1)],
)
def test_a_file_without_questions_is_refused(write: Write, content: str | bytes, line: int) -> None:
    with pytest.raises(InvalidDataset) as caught:
        read(write(content), most=10)
    assert caught.value.code == "invalid_benchmark"
    assert caught.value.errors[0].line == line


def test_only_the_first_wrong_rows_are_shown(write: Write) -> None:
    path = write(f"{json.dumps(GOOD | {'answer': 9})}\n" * (MAX_REPORTED + 5))
    with pytest.raises(InvalidDataset) as caught:
        read(path, most=1000)
    assert (len(caught.value.errors), caught.value.count) == (MAX_REPORTED, MAX_REPORTED + 5)


def test_mmlu_is_read_as_it_is_published(public_data: Path) -> None:
    files = sorted((public_data / "mmlu_subset").glob("*.jsonl"))
    assert files
    for path in files:
        found = read(path, most=100_000)
        assert len(found) == len(path.read_text(encoding="utf-8").splitlines())
        assert {len(question.choices) for question in found} == {4}
        assert all(question.question and 0 <= question.answer < 4 for question in found)
    first = read(public_data / "mmlu_subset" / "clinical_knowledge_dev.jsonl", most=1)[0]
    assert first.choices[first.answer] == "ATP."
