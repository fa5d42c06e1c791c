"""Rows of every layout become conversations, and each kind of bad row is refused with its place."""

import json

import pytest

from core.data.fields import InvalidRow
from core.data.layouts import as_row, detect, parse_row
from core.schemas.data import ColumnMap, RowFormat, ToolCall

GSM8K = ColumnMap(prompt="question", completion="answer")


def turns(value: object, layout: RowFormat, columns: ColumnMap | None = None) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in parse_row(value, layout, columns).messages]


def refused(value: object, layout: RowFormat, columns: ColumnMap | None = None) -> InvalidRow:
    with pytest.raises(InvalidRow) as caught:
        parse_row(value, layout, columns)
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
        (chat(("user", "a"), ("assistant", " \n")), "messages[1].content", "empty"),
        (chat(("user", ""), ("assistant", "b")), "messages[0].content", "empty"),
        (chat(("user", "a"), ("assistant", None)), "messages[1].content", "found null"),
        (chat(("user", "a"), ("assistant", "\u200b\n")), "messages[1].content", "empty"),
        (chat(("user", [{"type": "text"}]), ("assistant", "b")), "messages[0].content[0]", "other parts are not"),
        (
            chat(("user", [{"type": "image_url"}]), ("assistant", "b")),
            "messages[0].content[0]",
            "the type image are not supported",
        ),
        (chat(("robot", "a"), ("assistant", "b")), "messages[0].role", "found 'robot'"),
        (chat((1, "a"), ("assistant", "b")), "messages[0].role", "found a number"),
        (chat((["user"], "a"), ("assistant", "b")), "messages[0].role", "found a list"),
        (chat(("user", "a\0b"), ("assistant", "c")), "messages[0].content", "NUL at character 2"),
        (chat(("user", "é\ud800"), ("assistant", "c")), "messages[0].content", "U+D800) is at character 2"),
        ({"messages": "a"}, "messages", "expected JSON, found the text 'a'"),
        ({"messages": 1}, "messages", "expected a list of messages, found a number"),
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


CHAT = chat(("user", "a"), ("assistant", "b"))


def answer(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **fields}]}


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        (answer(weight=0.5), "messages[1].weight", "other weights are not supported"),
        (answer(train="no"), "messages[1].train", "expected 0 or 1, found text"),
        (answer(train_detail=[{}]), "messages[1].train_detail", "parts of a turn"),
        (answer(loss_weight=2), "messages[1].loss_weight", "loss weights"),
        (answer(mask=[0]), "messages[1].mask", "loss masks"),
        (answer(refusal="No."), "messages[1].refusal", "refusals beside the answer"),
        (answer(prefix=True), "messages[1].prefix", "continue a prefix"),
        (answer(audio={"id": "x"}), "messages[1].audio", "audio"),
        (answer(reasoning="x", thinking="y"), "messages[1].reasoning", "two fields contain thinking"),
        (answer(tool_calls=[{"id": 1}]), "messages[1].tool_calls[0]", "name and arguments"),
        (answer(tool_calls=[{"name": "f", "arguments": "["}]), "messages[1].tool_calls[0].arguments", "expected JSON"),
        (answer(tool_calls=[{"name": "f", "arguments": "[]"}]), "messages[1].tool_calls[0].arguments", "an object"),
        (CHAT | {"images": ["a.png"]}, "images", "images are not supported"),
        (CHAT | {"image": "a.png"}, "image", "images are not supported"),
        (CHAT | {"videos": ["a.mp4"]}, "videos", "video"),
        (CHAT | {"label": False}, "label", "KTO"),
        (CHAT | {"rejected": "c"}, "rejected", "preference pairs"),
        (CHAT | {"loss_mask": [0, 1]}, "loss_mask", "loss masks"),
        (CHAT | {"tools": {"name": "f"}}, "tools", "expected a list of tool definitions"),
        (chat(("system", "s"), ("user", "a"), ("assistant", "b")) | {"system": "t"}, "system", "two different system"),
        (CHAT | {"system": "s", "system_prompt": "t"}, "system", "two different system"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(row: object, column: str, says: str) -> None:
    error = refused(row, "messages")
    assert error.column == column
    assert says in error.reason


@pytest.mark.parametrize(
    "extra", [{"tools": ""}, {"tools": "[]"}, {"images": []}, {"weight": 1}, {"label": "qa"}, {"refusal": None}]
)
def test_an_empty_field_changes_nothing(extra: dict[str, object]) -> None:
    row = parse_row(CHAT | extra, "messages", None)
    assert [message.content for message in row.messages] == ["a", "b"]
    assert row.tools == ()


@pytest.mark.parametrize("mark", ["weight", "train", "training", "loss"])
def test_marks_exclude_turns_and_rows(mark: str) -> None:
    row = answer(**{mark: 0})
    row["messages"] = [*row["messages"], {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]  # type: ignore[misc]
    assert [message.trained for message in parse_row(row, "messages", None).messages] == [True, False, True, True]
    assert parse_row(CHAT | {mark: False}, "messages", None).messages == ()
    assert parse_row({"prompt": "a", "completion": "b", mark: 0}, "prompt_completion", None).messages == ()


def test_the_order_of_turns_is_the_rows_and_open_turns_at_the_end_are_cut() -> None:
    row = parse_row(
        chat(("assistant", "a"), ("user", "b"), ("developer", "c"), ("user", "d"), ("assistant", "e"), ("user", "f")),
        "messages",
        None,
    )
    assert [message.role for message in row.messages] == ["assistant", "user", "system", "user", "assistant"]
    assert row.cut == 1


def test_unused_fields_are_named() -> None:
    row = parse_row(answer(mood="good") | {"id": 3, "note": "", "source": "x"}, "messages", None)
    assert row.ignored == ("id", "source", "messages[].mood")


def test_tool_use_in_both_spellings() -> None:
    definition = {"type": "function", "function": {"name": "f", "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    openai = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "5"},
            {"role": "assistant", "content": "b"},
        ],
        "tools": [definition],
    }
    found = parse_row(openai, "messages", None)
    assert found.messages[1].tool_calls == (ToolCall(name="f", arguments={"x": 1}, id="1"),)
    assert (found.messages[2].role, found.messages[2].tool_call_id) == ("tool", "1")
    assert found.tools == (definition,)
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "5"},
            {"from": "gpt", "value": "b"},
        ],
        "system": "s",
        "tools": json.dumps([definition]),
    }
    row = parse_row(sharegpt, "sharegpt", None)
    assert [message.role for message in row.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert row.messages[2].tool_calls == (ToolCall(name="f", arguments={"x": 1}),)
    assert row.tools == (definition,)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_beside_the_answer(field: str) -> None:
    assert parse_row(answer(**{field: "hm"}), "messages", None).messages[1].thinking == "hm"
    row = {"prompt": "a", "completion": "b", field: "hm"}
    assert parse_row(row, "prompt_completion", None).messages[1].thinking == "hm"


@pytest.mark.parametrize(
    ("row", "layout", "expected"),
    [
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "GPT", "value": "b"}]}, "sharegpt", "a b"),
        ({"instruction": "a", "context": "x", "response": "b"}, "dolly", "a\n\nx b"),
        ({"system_prompt": "s", "question": "a", "response": "b"}, "openorca", "s a b"),
        ({"instruction": "a", "output": "b", "history": [["q", "r"]]}, "alpaca", "q r a b"),
        ({"text": " all of it"}, "text", " all of it"),
        ({"messages": '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'}, "messages", "a b"),
        (answer(content=[{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]), "messages", "a bc"),
        (answer(content=[{"type": "output_text", "text": "b"}, {"text": "c"}, "d"]), "messages", "a bcd"),
        (CHAT | {"system": [{"text": "s"}]}, "messages", "s a b"),
    ],
)
def test_other_layouts(row: dict[str, object], layout: RowFormat, expected: str) -> None:
    assert detect(tuple(row)) == layout
    assert " ".join(text for _, text in turns(row, layout)) == expected


def test_thinking_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "b"}]
    (_, found) = parse_row(answer(content=parts), "messages", None).messages
    assert (found.thinking, found.content) == ("Hm.", "b")


def test_prompt_and_completion_as_message_lists_train_the_completion_only() -> None:
    row = {
        "prompt": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
        "completion": [{"role": "assistant", "content": "d"}],
    }
    messages = parse_row(row, "prompt_completion", None).messages
    assert [(message.content, message.trained) for message in messages][1::2] == [("b", False), ("d", True)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (ColumnMap(messages="chat"), "a b"),
        (ColumnMap(text="about"), "s"),
        (ColumnMap(prompt="question", completion="answer", extra="about"), "q\n\ns r"),
    ],
)
def test_a_column_map_for_every_layout(columns: ColumnMap, expected: str) -> None:
    row = {"chat": CHAT["messages"], "about": "s", "question": "q", "answer": "r"}
    assert " ".join(text for _, text in turns(row, "mapped", columns)) == expected


def test_two_layouts_in_one_file_are_refused() -> None:
    with pytest.raises(InvalidRow, match="name it with a column map"):
        detect(("prompt", "completion", "messages"))
    with pytest.raises(InvalidRow, match="preference pairs"):
        detect(("prompt", "chosen", "rejected"))


@pytest.mark.parametrize(
    ("row", "layout", "column", "says"),
    [
        ({"prompt": "a", "completion": ""}, "prompt_completion", "completion", "empty"),
        ({"text": "a", "label": "good"}, "text", "label", "labels of classes"),
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


def test_an_empty_system_turn_does_not_shift_what_is_trained() -> None:
    row = {
        "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    messages = parse_row(row, "prompt_completion", None).messages
    assert [(message.content, message.trained) for message in messages][-1] == ("b", True)


def test_history_is_earlier_turns_in_chats_too() -> None:
    row = CHAT | {"history": [["q", "r"]], "system": "s"}
    assert [content for _, content in turns(row, "messages")] == ["s", "q", "r", "a", "b"]


@pytest.mark.parametrize("name", ["system", "tools", "history"])
def test_a_text_without_turns_has_no_place_for_other_turns(name: str) -> None:
    error = refused({"text": "all of it", name: "x"}, "text")
    assert (error.column, "has no turns" in error.reason) == (name, True)
