"""From a row's columns to a conversation.

Covers: the layouts of files that people have, which one a file has, and what a row's fields mean in each.
Not here: lists of messages (core.data.chatrows), marks and refused fields (core.data.fields), reading a file
(core.data.rows).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.data import fields
from core.data.chatrows import Chat, read_chat, read_content, read_tools
from core.data.fields import InvalidFile, InvalidRow, listed
from core.data.jsontext import kind
from core.schemas.data import ColumnMap, Message, RowFormat

NAMES: dict[RowFormat, str] = {
    "messages": "chat `messages`",
    "sharegpt": "ShareGPT `conversations`",
    "prompt_completion": "`prompt` and `completion`",
    "alpaca": "`instruction` and `output`",
    "dolly": "`instruction` and `response`",
    "openorca": "`question` and `response`",
    "text": "`text`, trained as a whole",
    "mapped": "the columns that the column map names",
}
_NEEDED: dict[RowFormat, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "dolly": ("instruction", "response"),
    "openorca": ("question", "response"),
    "text": ("text",),
}
_CHATS: tuple[RowFormat, ...] = ("messages", "sharegpt")
_EXTRA: dict[RowFormat, str] = {"alpaca": "input", "dolly": "context"}
"""Columns with text that belongs to the prompt."""
_PAIRS = (("query", "response"), ("prompt", "response"), ("question", "answer"), ("input", "output"))
"""Other usual names of a prompt and its completion."""
MAX_COLUMNS = 1000
_OPTIONAL = frozenset(("system", "system_prompt", "tools", "functions", "history"))
"""Columns that are used in every layout."""


@dataclass(frozen=True)
class ParsedRow:
    """What a row contains."""

    messages: tuple[Message, ...]
    """The turns, the last one an assistant's. Empty if no turn is to be trained on."""
    tools: tuple[dict[str, Any], ...] = ()
    """Definitions of the tools that the assistant may call."""
    whole: bool = False
    """The row is a text without turns: all of it is trained on, without a chat template."""
    cut: int = 0
    """Number of turns at the end that have no answer."""
    ignored: tuple[str, ...] = ()
    """Names of fields that are not used."""


@dataclass(frozen=True)
class _Columns:
    """The columns of a question and its answer."""

    prompt: str
    completion: str
    system: str | None = None
    extra: str | None = None
    """Column with a text that belongs to the prompt."""


def detect(names: tuple[str, ...]) -> RowFormat:
    """The layout that these columns make. A column `text` counts only if there is no other layout.

    Raises:
        InvalidFile: they make none, or two.
    """
    if len(names) > MAX_COLUMNS:
        raise InvalidFile(None, f"the rows have {len(names)} columns; the limit is {MAX_COLUMNS}")
    found = [layout for layout, needed in _NEEDED.items() if all(name in names for name in needed)]
    if len(found) > 1 and "text" in found:
        found.remove("text")
    if len(found) > 1:
        both = " and ".join(NAMES[layout] for layout in found[:2])
        raise InvalidFile(
            None, f"the rows have {both}, and only one is trained on: name it with a column map, or remove the other"
        )
    if found:
        return found[0]
    known = "; ".join(NAMES[layout] for layout in _NEEDED)
    for pair in ("chosen", "rejected"):
        if pair in names:
            fields.check_refused({pair: pair})
    raise InvalidFile(
        None,
        f"no known layout has the columns {listed(names)}. Known are {known}. "
        "For other columns send a column map that names the prompt and the completion",
    )


def guess_columns(names: Iterable[str]) -> ColumnMap | None:
    """A column map for columns that make no known layout but have usual names; None if they do not."""
    known = frozenset(names)
    pair = next((pair for pair in _PAIRS if known.issuperset(pair)), None)
    if pair is None:
        return None
    return ColumnMap(prompt=pair[0], completion=pair[1], extra="context" if "context" in known else None)


def reject_repeated(names: Iterable[str]) -> None:
    """Raise `InvalidRow` for the first column name of a CSV file that occurs twice; unnamed columns do not count."""
    for name, count in Counter(names).items():
        if name and count > 1:
            raise InvalidRow(name, "the header contains this column twice; rename one of them")


def needed_columns(layout: RowFormat, columns: ColumnMap | None) -> tuple[str, ...]:
    """The columns that every row of `layout` must have."""
    return _given(columns).needed if layout == "mapped" else _NEEDED[layout]


def _given(columns: ColumnMap | None) -> ColumnMap:
    if columns is None:
        raise ValueError("the mapped layout needs a column map")
    return columns


def parse_row(value: object, layout: RowFormat, columns: ColumnMap | None) -> ParsedRow:
    """The conversation in a row.

    Raises:
        InvalidRow: the row is not an object, is in another layout, or has a field that cannot be honoured.
    """
    row = as_row(value)
    needed = needed_columns(layout, columns)
    missing = [name for name in needed if name not in row]
    if missing:
        raise InvalidRow(missing[0], _describe_missing(row, layout))
    if len(row) == 1 and layout in _CHATS:
        # Nothing beside the messages: nearly every file, so this way is short.
        chat = read_chat(row[needed[0]], needed[0])
        return ParsedRow(chat.messages if chat.trained else (), cut=chat.cut, ignored=chat.ignored)
    fields.check_refused(row)
    used = _OPTIONAL.union(needed)
    if layout == "text" or (columns is not None and columns.text is not None):
        return _whole_text(row, needed[0], used)
    if layout in _CHATS or (columns is not None and columns.messages is not None):
        return _with_row_fields(row, read_chat(row[needed[0]], needed[0]), used)
    if layout == "prompt_completion" and (isinstance(row["prompt"], list) or isinstance(row["completion"], list)):
        return _with_row_fields(row, _message_lists(row), used)
    return _question(row, _question_columns(layout, columns), used)


def _question_columns(layout: RowFormat, columns: ColumnMap | None) -> _Columns:
    if columns is not None and columns.prompt is not None and columns.completion is not None:
        return _Columns(columns.prompt, columns.completion, columns.system, columns.extra)
    prompt, completion = _NEEDED[layout]
    return _Columns(prompt, completion, extra=_EXTRA.get(layout))


def as_row(value: object) -> dict[str, object]:
    """The row as columns and their values.

    Raises:
        InvalidRow: it is not an object.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        raise InvalidFile(None, "each line is a string that contains JSON: write the object itself, without quotes")
    if not isinstance(value, dict):
        raise InvalidRow(None, f"the row is {kind(value)}, not an object with columns")
    return value


def _question(row: Mapping[str, object], names: _Columns, used: frozenset[str]) -> ParsedRow:
    """A row with a prompt and a completion in columns of their own."""
    prompt = fields.text(row[names.prompt], names.prompt)
    extra = fields.optional_text(row, names.extra) if names.extra else None
    answer = Message(
        role="assistant", content=fields.text(row[names.completion], names.completion), thinking=fields.thinking(row)
    )
    system = fields.optional_text(row, names.system) if names.system else None
    head = (Message(role="system", content=system),) if system else ()
    question = Message(role="user", content=f"{prompt}\n\n{extra}" if extra else prompt)
    known = frozenset(name for name in (names.extra, names.system) if name)
    return _with_row_fields(row, Chat((*head, question, answer)), used | known)


def _history(row: Mapping[str, object]) -> Iterable[Message]:
    """Earlier turns beside the row's own: pairs of a question and its answer."""
    value = fields.parsed(row.get("history") or [], "history")
    if not isinstance(value, list):
        raise InvalidRow("history", f"expected a list of pairs, found {kind(value)}")
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidRow(f"history[{index}]", "expected a pair of a question and its answer")
        yield Message(role="user", content=fields.text(pair[0], f"history[{index}][0]"))
        yield Message(role="assistant", content=fields.text(pair[1], f"history[{index}][1]"))


def _message_lists(row: Mapping[str, object]) -> Chat:
    """A prompt and a completion that are lists of messages: only the completion is trained on."""
    prompt = fields.parsed(row["prompt"], "prompt")
    completion = fields.parsed(row["completion"], "completion")
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise InvalidRow("completion", "prompt and completion must both be texts, or both lists of messages")
    untrained = [{**item, "train": False} if isinstance(item, dict) else item for item in prompt]
    return read_chat([*untrained, *completion], "prompt and completion")


def _whole_text(row: Mapping[str, object], name: str, used: frozenset[str]) -> ParsedRow:
    ignored = tuple(fields.ignored(row, used - _OPTIONAL))
    if beside := sorted(_OPTIONAL.intersection(ignored)):
        raise InvalidRow(beside[0], "a text that is trained on as a whole has no turns; remove the field or the row")
    if "label" in ignored:
        raise InvalidRow("label", "labels of classes are not supported; name prompt and completion with a column map")
    message = Message(role="assistant", content=fields.text(row[name], name))
    return ParsedRow((message,) if fields.is_trained(row) else (), whole=True, ignored=ignored)


def _with_row_fields(row: Mapping[str, object], chat: Chat, used: frozenset[str]) -> ParsedRow:
    """Add a system turn, tools and marks that stand beside the turns."""
    head = chat.messages[:1] if chat.messages[0].role == "system" else ()
    systems = [message.content for message in head]
    systems += [text for name in ("system", "system_prompt") if (text := read_content(row.get(name), name).text)]
    if len(set(systems)) > 1:
        raise InvalidRow("system", "the row has two different system texts; keep one")
    messages = (
        *(Message(role="system", content=text) for text in systems[:1]),
        *_history(row),
        *chat.messages[len(head) :],
    )
    tools = read_tools(row.get("tools"), "tools") or read_tools(row.get("functions"), "functions")
    return ParsedRow(
        messages if chat.trained and fields.is_trained(row) else (),
        tools,
        cut=chat.cut,
        ignored=(*fields.ignored(row, used), *chat.ignored),
    )


def _describe_missing(row: Mapping[str, object], layout: RowFormat) -> str:
    reason = f"the column is missing; the rows of this file have {NAMES[layout]}"
    if layout == "mapped":
        return f"{reason}, and this row has {listed(tuple(row))}"
    other = next((name for name, needed in _NEEDED.items() if all(column in row for column in needed)), None)
    return f"{reason}, but this row has {NAMES[other]}; use one layout per file" if other else reason
