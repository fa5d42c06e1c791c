"""Files of questions with lettered choices, in the layout of MMLU: what a model is measured on beside the job's rows.

Covers: the three ways in which files write choices and answers, what is refused; one reader for the API (which may not
reach torch) and for the worker. Not here: how CSV and JSON are read (core.data.csvrows, core.data.jsonrows), where a
file is (core.data.files), asking the questions (core.quality.choices).
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from string import ascii_uppercase

from core.data import fields
from core.data.fields import InvalidRow, listed
from core.data.jsontext import JsonProblem, StrictDecoder, clip, kind
from core.data.layouts import as_row, reject_repeated
from core.data.records import Header, Record
from core.data.sniff import sniff
from core.data.streams import open_utf8
from core.data.tables import error_code, only_valid, read_table

LETTERS = ascii_uppercase
"""Names of the choices, in order."""
_NEEDED = "question, choices (or a column for each letter from A on) and answer"


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose right answer is one of its choices."""

    question: str
    """What is asked, without the choices."""
    choices: tuple[str, ...]
    """At least two, in order; the first is A."""
    answer: int
    """Which one is right, from 0."""


def read(path: Path, *, most: int) -> tuple[Question, ...]:
    """The first `most` questions of a JSONL, JSON or CSV file; what stands behind them is not read.

    A row has `question`, `choices` (a list, or texts by letter; in CSV either as JSON, or a column for each letter) and
    `answer` (an index from 0, or a letter).

    Raises:
        InvalidDataset: code `invalid_benchmark`; the file cannot be read as rows, or one of these rows is wrong: with
            the first `MAX_REPORTED` of them and their count.
    """
    with error_code("invalid_benchmark"), open_utf8(path) as stream:
        return tuple(only_valid(islice(read_table(stream, sniff(stream), _check_header, _question), most)))


def _check_header(header: Header) -> None:
    names = header.names
    reject_repeated(names)
    missing = next((name for name in ("question", "answer") if name not in names), None)
    if missing is None and "choices" not in names and not {"A", "B"} <= set(names):
        missing = "choices"
    if missing is not None:
        reason = f"the header lacks this column; it has {listed(names)}. The required columns are {_NEEDED}"
        raise InvalidRow(missing, reason)


def _question(record: Record) -> Question:
    row = as_row(record.value)
    for name in ("question", "answer"):
        if name not in row:
            raise InvalidRow(name, f"the column is missing; the row has {listed(tuple(row))}")
    text = fields.text(row["question"], "question").strip()
    choices = _choices(row)
    return Question(text, choices, _answer(row["answer"], len(choices)))


def _choices(row: dict[str, object]) -> tuple[str, ...]:
    if "choices" not in row:
        # A short question leaves its last columns empty in CSV.
        lettered = {name: value for name, value in row.items() if name in LETTERS and value != ""}
        if not lettered:
            raise InvalidRow("choices", f"the column is missing; the required columns are {_NEEDED}")
        return _by_letter(lettered, "")
    value = row["choices"]
    if isinstance(value, str):
        value = StrictDecoder().decode(value)
        if isinstance(value, JsonProblem):
            raise InvalidRow("choices", 'expected a list of texts as JSON, such as ["one", "two"]')
    if isinstance(value, dict):
        return _by_letter(value, "choices.")
    if not isinstance(value, list):
        raise InvalidRow("choices", f"expected a list of texts, or texts by letter, found {kind(value)}")
    return _texts([(f"choices[{index}]", text) for index, text in enumerate(value)])


def _by_letter(value: dict[str, object], prefix: str) -> tuple[str, ...]:
    names = sorted(value)
    if "".join(names) != LETTERS[: len(names)]:
        raise InvalidRow("choices", f"expected the letters A, B and so on, found {listed(tuple(names))}")
    return _texts([(f"{prefix}{name}", value[name]) for name in names])


def _texts(places: list[tuple[str, object]]) -> tuple[str, ...]:
    if not 2 <= len(places) <= len(LETTERS):
        raise InvalidRow("choices", f"expected 2 to {len(LETTERS)} choices, found {len(places)}")
    return tuple(fields.text(text, place).strip() for place, text in places)


def _answer(value: object, count: int) -> int:
    """Which choice is meant by an index, a letter, or an index written as text."""
    last = LETTERS[count - 1]
    if isinstance(value, str):
        text = value.strip()
        letter = LETTERS.find(text.upper()) if len(text) == 1 else -1
        found = letter if letter >= 0 else int(text) if text.isdecimal() and len(text) < 4 else None
        shown = clip(text)
    elif isinstance(value, int) and not isinstance(value, bool):
        found, shown = value, f"{value}"
    else:
        found, shown = None, kind(value)
    if found is None or not 0 <= found < count:
        raise InvalidRow(
            "answer", f"expected a letter from A to {last} or an index from 0 to {count - 1}, found {shown}"
        )
    return found
