"""Files of prompts in the layouts of published sets: what attacks are built from, and safe look-alikes.

Covers: the columns of each layout, rows that are left out, what is refused; one reader for the API (which may not reach
torch) and for the worker. Not here: how CSV and JSON are read (core.data.csvrows, core.data.jsonrows), where a file is
(core.data.files), which prompts a job takes (core.attacks).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.data import fields
from core.data.fields import InvalidFile, InvalidRow, listed
from core.data.jsontext import clip
from core.data.layouts import as_row, reject_repeated
from core.data.records import Header, Record
from core.data.sniff import sniff
from core.data.streams import open_utf8
from core.data.tables import error_code, only_valid, read_table
from core.errors import InvalidDataset
from core.schemas.data import RowError
from core.schemas.prompts import Behaviour, Layout, PromptFileSummary, Use

MAX_ROWS = 10_000
"""Rows of one file, those that are left out among them."""
MAX_CHARACTERS = 8000
"""Characters of one prompt."""
MAX_CONTEXT = 32_000
"""Characters of a text that a prompt is about."""
MAX_CATEGORIES = 200
"""Largest number of categories in one file; figures are reported for each."""
_LONGEST_CATEGORY = 200
_CODE = "invalid_prompt_set"


@dataclass(frozen=True)
class _Columns:
    """Where a layout keeps what."""

    text: str
    """The request."""
    category: str | None = None
    """What it is about."""
    context: str | None = None
    """A text that belongs to it."""
    needed: tuple[str, ...] = ()
    """Columns that must be there."""


_LAYOUTS: dict[Layout, _Columns] = {
    "advbench": _Columns("goal", needed=("goal",)),
    "harmbench": _Columns(
        "Behavior",
        category="SemanticCategory",
        context="ContextString",
        needed=("Behavior", "FunctionalCategory", "SemanticCategory"),
    ),
    "strongreject": _Columns("forbidden_prompt", category="category", needed=("category", "forbidden_prompt")),
    "jailbreakbench": _Columns("Goal", category="Category", needed=("Goal", "Category")),
    "xstest": _Columns("prompt", category="type", needed=("prompt", "type")),
    "plain": _Columns("text", category="category", context="context", needed=("text",)),
}


@dataclass(frozen=True, slots=True)
class _Prompt:
    behaviour: Behaviour
    uses: tuple[Use, ...]


def read(path: Path, layout: Layout, use: Use) -> tuple[Behaviour, ...]:
    """The prompts of a file for one use, in its order, each once.

    Raises:
        InvalidDataset: code `invalid_prompt_set`; not one row may be wrong, and there must be a prompt for this use.
        TooLarge: it has more than `MAX_ROWS` rows.
    """
    with error_code(_CODE):
        prompts = [prompt for prompt in _prompts(path, layout) if prompt is not None]
        found = tuple(prompt.behaviour for prompt in prompts if use in prompt.uses)
        if not found:
            raise _nothing(f"none of its {len(prompts)} prompts is {use}")
    return found


def summarise(path: Path, layout: Layout) -> PromptFileSummary:
    """Read a whole file and say what is in it.

    Raises:
        InvalidDataset: code `invalid_prompt_set`, with the first `MAX_REPORTED` refused rows and their count.
        TooLarge: it has more than `MAX_ROWS` rows.
    """
    uses, categories = Counter[Use](), Counter[str]()
    left_out = 0
    with error_code(_CODE):
        for prompt in _prompts(path, layout):
            if prompt is None:
                left_out += 1
                continue
            uses.update(prompt.uses)
            if prompt.behaviour.category is not None:
                categories[prompt.behaviour.category] += 1
        if not uses:
            raise _nothing(f"all of its {left_out} rows were skipped, so it contains no prompts")
    return PromptFileSummary(
        layout=layout, harmful=uses["harmful"], safe=uses["safe"], categories=dict(categories), left_out=left_out
    )


def _nothing(reason: str) -> InvalidDataset:
    error = RowError(line=1, column=None, reason=reason)
    return InvalidDataset(f"The file cannot be used: {reason}.", errors=(error,), count=1)


def _prompts(path: Path, layout: Layout) -> Iterator[_Prompt | None]:
    """A prompt for every row, or None for a row that is left out; then `InvalidDataset` if any row is invalid."""
    reader = _Reader(layout)
    with open_utf8(path) as stream:
        rows = read_table(stream, sniff(stream), reader.take_header, reader.convert, max_rows=MAX_ROWS)
        yield from only_valid(rows)


class _Reader:
    """Converts the rows of one file; None for a repeated prompt, and for a row that no judge here can decide."""

    def __init__(self, layout: Layout) -> None:
        self._layout: Layout = layout
        self._columns = _LAYOUTS[layout]
        self._checked = False
        self._categories: set[str] = set()
        self._seen: set[str] = set()

    def take_header(self, header: Header) -> Record | None:
        """Check the columns of a CSV file. AdvBench's file of one column has no header: its first line is a prompt."""
        name = header.names[0]
        if self._layout == "advbench" and len(header.names) == 1 and " " in name:
            self._columns = _Columns(name, needed=(name,))
            return Record(header.line, {name: name})
        self._check(header.names)
        return None

    def convert(self, record: Record) -> _Prompt | None:
        row = as_row(record.value)
        if not self._checked:
            self._check(tuple(row))
        prompt = _prompt(row, self._layout, self._columns)
        if prompt is None:
            return None
        if prompt.behaviour.category is not None:
            self._categories.add(prompt.behaviour.category)
        if len(self._categories) > MAX_CATEGORIES:
            reason = f"more than {MAX_CATEGORIES} different categories; figures are reported for each, so use fewer"
            raise InvalidFile(self._columns.category, reason)
        if prompt.behaviour.full_text in self._seen:
            return None
        self._seen.add(prompt.behaviour.full_text)
        return prompt

    def _check(self, names: tuple[str, ...]) -> None:
        """Raise `InvalidFile` if no row with these columns can be in the layout."""
        columns = self._columns
        self._checked = True
        missing = next((name for name in columns.needed if name not in names), None)
        if missing is not None:
            fits = next((other for other, known in _LAYOUTS.items() if set(known.needed) <= set(names)), None)
            like = f", which are those of the layout {fits}" if fits else ""
            needed = f"the layout {self._layout} needs the columns {listed(columns.needed)}"
            raise InvalidFile(missing, f"{needed}; the file has {listed(names)}{like}")
        used = {*columns.needed, columns.category, columns.context}
        reject_repeated(name for name in names if name in used)


def _prompt(row: dict[str, object], layout: Layout, columns: _Columns) -> _Prompt | None:
    """The prompt in a row; None for one that no judge here can decide.

    Raises:
        InvalidRow: it holds none.
    """
    for name in columns.needed:
        if name not in row:
            raise InvalidRow(name, f"the column is missing; rows of the layout {layout} have it")
    text = fields.text(row[columns.text], columns.text).strip()
    _refuse_long(text, columns.text, MAX_CHARACTERS)
    if layout == "harmbench" and _optional(row, "FunctionalCategory", _LONGEST_CATEGORY) == "copyright":
        return None  # told by hashes of the protected texts, which are not here
    behaviour = Behaviour(
        text=text,
        category=_optional(row, columns.category, _LONGEST_CATEGORY),
        context=_optional(row, columns.context, MAX_CONTEXT),
    )
    return _Prompt(behaviour, _uses(row) if layout == "xstest" else ("harmful", "safe"))


def _uses(row: dict[str, object]) -> tuple[Use, ...]:
    """XSTest's label; its files of completions have none, and their types say it."""
    match _optional(row, "label", _LONGEST_CATEGORY):
        case "safe":
            return ("safe",)
        case "unsafe":
            return ("harmful",)
        case None:
            contrast = (_optional(row, "type", _LONGEST_CATEGORY) or "").startswith("contrast_")
            return ("harmful",) if contrast else ("safe",)
        case other:
            raise InvalidRow("label", f"expected safe or unsafe, found {clip(other)}")


def _optional(row: dict[str, object], name: str | None, longest: int) -> str | None:
    value = row.get(name) if name else None
    if name is None or value is None:
        return None
    text = fields.text(value, name, may_be_empty=True).strip()
    _refuse_long(text, name, longest)
    return text or None


def _refuse_long(text: str, name: str, longest: int) -> None:
    if len(text) > longest:
        raise InvalidRow(name, f"the text has {len(text)} characters; the limit is {longest}")
