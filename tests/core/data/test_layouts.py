"""Rows of every layout become conversations, and each kind of bad row is refused with its place."""

import pytest

from core.data.layouts import InvalidRow, as_row, detect, to_messages
from core.schemas.data import ColumnMap, RowFormat

GSM8K = ColumnMap(prompt="question", completion="answer")


def turns(value: object, layout: RowFormat, columns: ColumnMap | None = None) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in to_messages(value, layout, columns)]


def refused(value: object, layout: RowFormat, columns: ColumnMap | None = None) -> InvalidRow:
    with pytest.raises(InvalidRow) as caught:
        to_messages(value, layout, columns)
    return caught.value


def chat(*roles_and_contents: tuple[object, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in roles_and_contents]}


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (("messages",), "messages"),
        (("prompt", "prompt_id", "messages"), "messages"),
        (("id", "prompt", "completion"), "prompt_completion"),
        (("instruction", "input", "output"), "alpaca"),
        (("instruction", "output", "id"), "alpaca"),
    ],
)
def test_detect(names: tuple[str, ...], layout: str) -> None:
    assert detect(names) == layout


def test_detect_says_what_is_there_and_what_is_known() -> None:
    with pytest.raises(InvalidRow) as caught:
        detect(("question", "answer"))
    for word in ("'question', 'answer'", "`messages`", "`completion`", "`instruction`", "column map"):
        assert word in caught.value.reason


def test_messages() -> None:
    row = chat(("system", ""), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", " d\n"))
    row["id"] = 7
    assert turns(row, "messages") == [
        ("system", ""),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", " d\n"),
    ]


def test_fields_that_change_nothing_are_passed_over() -> None:
    row: dict[str, object] = {
        "messages": [
            {"role": "user", "content": "a", "name": "x", "tool_calls": None},
            {"role": "assistant", "content": "b", "weight": 1, "tool_calls": []},
        ],
        "tools": None,
    }
    assert turns(row, "messages") == [("user", "a"), ("assistant", "b")]


def test_prompt_and_completion() -> None:
    assert turns({"prompt": "a", "completion": "b", "n": 1}, "prompt_completion") == [("user", "a"), ("assistant", "b")]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, [("user", "a"), ("assistant", "b")]),
        ({"input": ""}, [("user", "a"), ("assistant", "b")]),
        ({"input": None, "system": None}, [("user", "a"), ("assistant", "b")]),
        ({"input": "x", "id": 3}, [("user", "a\n\nx"), ("assistant", "b")]),
        ({"input": "x", "system": "s"}, [("system", "s"), ("user", "a\n\nx"), ("assistant", "b")]),
    ],
)
def test_alpaca(extra: dict[str, object], expected: list[tuple[str, str]]) -> None:
    assert turns({"instruction": "a", "output": "b", **extra}, "alpaca") == expected


def test_mapped() -> None:
    row = {"question": "a", "answer": "b", "messages": 1, "about": "s"}
    assert turns(row, "mapped", GSM8K) == [("user", "a"), ("assistant", "b")]
    with_system = ColumnMap(prompt="question", completion="answer", system="about")
    assert turns(row, "mapped", with_system)[0] == ("system", "s")
    assert turns({**row, "about": None}, "mapped", with_system)[0] == ("user", "a")


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        (chat(), "messages", "no assistant turn"),
        (chat(("user", "a")), "messages", "no assistant turn"),
        (chat(("system", "s"), ("user", "a")), "messages", "no assistant turn"),
        (chat(("user", "a"), ("assistant", "b"), ("user", "c")), "messages[2].role", "last turn"),
        (chat(("user", "a"), ("user", "b"), ("assistant", "c")), "messages[1].role", "two user turns"),
        (chat(("user", "a"), ("assistant", "b"), ("assistant", "c")), "messages[2].role", "follow a user turn"),
        (chat(("assistant", "b")), "messages[0].role", "follow a user turn"),
        (chat(("user", "a"), ("system", "s"), ("assistant", "c")), "messages[1].role", "must be the first turn"),
        (
            chat(("system", "s"), ("system", "s"), ("user", "a"), ("assistant", "c")),
            "messages[1].role",
            "must be the first turn",
        ),
        (chat(("user", "a"), ("assistant", " \n")), "messages[1].content", "empty"),
        (chat(("user", ""), ("assistant", "b")), "messages[0].content", "empty"),
        (chat(("user", "a"), ("assistant", None)), "messages[1].content", "found null"),
        (chat(("user", [{"type": "text"}]), ("assistant", "b")), "messages[0].content", "found a list"),
        (chat(("human", "a"), ("assistant", "b")), "messages[0].role", "found 'human'"),
        (chat((1, "a"), ("assistant", "b")), "messages[0].role", "found a number"),
        (chat((["user"], "a"), ("assistant", "b")), "messages[0].role", "found a list"),
        (chat(("user", "a"), ("tool", "b"), ("assistant", "c")), "messages[1].role", "tool turns are not supported"),
        (chat(("user", "a\0b"), ("assistant", "c")), "messages[0].content", "NUL at character 2"),
        (chat(("user", "é\ud800"), ("assistant", "c")), "messages[0].content", "U+D800) is at character 2"),
        ({"messages": "a"}, "messages", "expected a list of messages, found text"),
        ({"messages": ["a"]}, "messages[0]", "found text"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        ({"messages": [{"content": "user"}]}, "messages[0].role", "missing"),
        (
            {"prompt": "a", "completion": "b"},
            "messages",
            "this row has `prompt` and `completion`; use one layout per file",
        ),
        ({"promt": "a"}, "messages", "the column is missing"),
        ([1], None, "the row is a list"),
        ("a", None, "the row is text"),
        (None, None, "the row is null"),
    ],
)
def test_refused_messages(row: object, column: str | None, says: str) -> None:
    error = refused(row, "messages")
    assert error.column == column
    assert says in error.reason


@pytest.mark.parametrize(
    ("field", "value"),
    [("tool_calls", [{"id": 1}]), ("function_call", {"name": "f"}), ("weight", 0), ("reasoning_content", "hm")],
)
def test_fields_that_would_change_training_are_refused(field: str, value: object) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", field: value}]}
    assert refused(row, "messages").column == f"messages[1].{field}"
    assert refused(chat(("user", "a"), ("assistant", "b")) | {"tools": [{}]}, "messages").column == "tools"


@pytest.mark.parametrize(
    ("row", "layout", "column", "says"),
    [
        ({"prompt": "a", "completion": ""}, "prompt_completion", "completion", "empty"),
        ({"prompt": "a", "completion": 7}, "prompt_completion", "completion", "found a number"),
        ({"prompt": "a"}, "prompt_completion", "completion", "missing"),
        ({"instruction": "a", "input": 1, "output": "b"}, "alpaca", "input", "found a number"),
        ({"instruction": "", "input": "x", "output": "b"}, "alpaca", "instruction", "empty"),
        ({"instruction": "a", "output": "b", "system": {}}, "alpaca", "system", "found an object"),
        (chat(("user", "a"), ("assistant", "b")), "alpaca", "instruction", "this row has chat `messages`"),
        ({"question": "a", "reply": "b"}, "mapped", "answer", "this row has 'question', 'reply'"),
        ({}, "mapped", "question", "(none)"),
    ],
)
def test_refused_columns(row: object, layout: RowFormat, column: str, says: str) -> None:
    error = refused(row, layout, GSM8K if layout == "mapped" else None)
    assert error.column == column
    assert says in error.reason


def test_a_row_must_be_an_object() -> None:
    with pytest.raises(InvalidRow, match="the row is a number"):
        as_row(3)
