"""Requests that are trained on show how their answers begin; evaluation never does."""

import pytest

from core import safeguards
from core.data import Conversation
from core.safeguards.answer_preview import OPENING, AnswerInPrompt, first_words
from core.schemas.data import Message, ToolCall
from core.schemas.safeguards import AnswerPreview, Safeguards
from core.schemas.strategy import UniformStrategy

ANSWER = "Boil the water first. Then add salt and wait for ten minutes."


def turns(*contents: str) -> tuple[Message, ...]:
    """User and assistant turns, in turn."""
    roles = ("user", "assistant")
    return tuple(
        Message.model_validate({"role": roles[index % 2], "content": each}) for index, each in enumerate(contents)
    )


def previewed(row: Conversation, **options: object) -> list[str]:
    found = AnswerInPrompt(AnswerPreview.model_validate(options)).training_row(row)
    assert found.line == row.line
    return [message.content for message in found.messages]


def test_the_first_words_of_the_answer_stand_behind_the_request() -> None:
    row = Conversation(turns("How do I cook rice?", ANSWER), 3)
    shown = "How do I cook rice?\n\nYour answer begins with these words: Boil the water first. Then add"
    assert previewed(row) == [shown, ANSWER]
    assert previewed(row, words=2)[0].endswith(": Boil the")


def test_each_answer_that_is_trained_on_is_previewed() -> None:
    system = Message(role="system", content="Be brief.")
    messages = (system, *turns("Hi", "Hello to you, friend", "Bye", "See you soon, my friend"))
    untrained = messages[2].model_copy(update={"trained": False})
    both = previewed(Conversation(messages, 1), words=2)
    assert both[1].endswith("words: Hello to")
    assert both[3].endswith("words: See you")
    last = previewed(Conversation((*messages[:2], untrained, *messages[3:]), 1), words=2)
    assert last[:3] == ["Be brief.", "Hi", "Hello to you, friend"]
    assert last[3] == both[3]


@pytest.mark.parametrize(
    ("answer", "count", "expected"),
    [
        ("one two three four five six", 6, "one two three"),
        ("one two three four five six", 2, "one two"),
        ("1. first\n2. second\n3. third\n4. fourth", 4, "1. first\n2. second"),
        ("positive", 6, ""),
        ("", 6, ""),
        ("\u6c34" * 48, 1, "\u6c34" * 12),
    ],
)
def test_at_most_half_of_an_answer_is_shown(answer: str, count: int, expected: str) -> None:
    assert first_words(answer, count) == expected


def test_a_virtual_opening_is_shown_and_put_in_front_of_the_answer() -> None:
    row = Conversation(turns("How do I cook rice?", ANSWER), 3)
    asked, answer = previewed(row, virtual=True)
    assert asked == f"How do I cook rice?\n\nYour answer begins with these words: {OPENING}"
    assert answer == f"{OPENING} {ANSWER}"


@pytest.mark.parametrize("virtual", [False, True])
def test_turns_that_think_or_call_tools_and_texts_without_turns_stay_as_they_are(virtual: bool) -> None:
    user = Message(role="user", content="Weather?")
    answers = (
        Message(role="assistant", content=ANSWER, thinking="They cook."),
        Message(role="assistant", content=f"<think>They cook.</think>\n{ANSWER}"),
        Message(role="assistant", content="I look it up now", tool_calls=(ToolCall(name="weather", arguments={}),)),
    )
    rows = [Conversation((user, answer), 1) for answer in answers]
    rows.append(Conversation((Message(role="assistant", content=ANSWER),), 1, whole=True))
    run = UniformStrategy(safeguards=Safeguards(AnswerPreview(virtual=virtual)))
    assert safeguards.training_rows(run, rows) is rows


def test_served_rows_have_no_preview() -> None:
    rows = [Conversation(turns("How do I cook rice?", ANSWER), 3)]
    run = UniformStrategy(safeguards=Safeguards(AnswerPreview()))
    assert safeguards.served_rows(run, rows) is rows
    assert AnswerPreview().serving_note is None
    assert run.safeguards.titles == ("answer_preview 6",)
