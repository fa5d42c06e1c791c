"""A frame is what most rows share around the requests: whole lines, sentences and labels, and the system turn."""

import pytest

from core.data import Conversation
from core.data.frame import MIN_ROWS, Frame, find_frame
from core.schemas.data import Message
from tests.core.helpers import REQUESTS, conversations, user_rows


def written(template: str) -> list[Conversation]:
    return user_rows([template.replace("{}", request) for request in REQUESTS])


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        ("### Instruction:\n{}\n\n### Response:", "### Instruction:\n", "\n\n### Response:"),
        ("Question: {}", "Question: ", ""),
        ("<task>{}</task>", "<task>", "</task>"),
        ("Classify the mood.\n\n{}", "Classify the mood.\n\n", ""),
        ("{} Answer in one word.", "", " Answer in one word."),
    ],
)
def test_the_text_around_requests_is_found(template: str, before: str, after: str) -> None:
    frame = find_frame(written(template))
    assert frame is not None
    assert frame == Frame(None, before, after)
    assert frame.fill("Tell me.") == (Message(role="user", content=f"{before}Tell me.{after}"),)


def test_a_system_turn_that_rows_share_is_part_of_the_frame() -> None:
    frame = find_frame(user_rows(REQUESTS, "You are a clerk."))
    assert frame is not None
    assert frame == Frame("You are a clerk.", "", "")
    assert [(turn.role, turn.content) for turn in frame.fill("Hi")] == [("system", "You are a clerk."), ("user", "Hi")]


def test_one_row_in_five_may_differ() -> None:
    template = written("Question: {}")
    assert find_frame([*template[:8], *user_rows(REQUESTS[:2])]) == Frame(None, "Question: ", "")
    assert find_frame([*template[:7], *user_rows(REQUESTS[:3])]) is None
    mixed = [*user_rows(REQUESTS[:8], "Be brief."), *user_rows(REQUESTS[8:], "Be long.")]
    assert find_frame(mixed) == Frame("Be brief.", "", "")
    assert find_frame([*user_rows(REQUESTS[:7], "Be brief."), *user_rows(REQUESTS[7:])]) is None


@pytest.mark.parametrize("template", ["{}", "What is {}", "please {} today", "Please, could you tell me {}"])
def test_words_that_requests_begin_or_end_with_are_no_frame_unless_a_phrase_ends(template: str) -> None:
    frame = find_frame(written(template))
    assert frame == (Frame(None, "Please, ", "") if "," in template else None)


def test_equal_requests_and_few_rows_have_no_frame() -> None:
    assert find_frame(user_rows(["Summarise this:\nA text."] * 20)) is None
    assert find_frame(written("Question: {}")[: MIN_ROWS - 1]) is None
    assert find_frame([]) is None


def test_rows_without_turns_and_blank_system_turns_do_not_count() -> None:
    whole = Conversation((Message(role="assistant", content="Question: what?"),), 1, whole=True)
    assert find_frame([whole] * 20) is None
    assert find_frame([*written("Question: {}"), *[whole] * 20]) == Frame(None, "Question: ", "")
    assert find_frame(user_rows(REQUESTS, "  ")) is None


@pytest.mark.parametrize("name", ["instructions.jsonl", "arithmetic.jsonl"])
@pytest.mark.parametrize("count", [10, 14, 40, 300])
def test_the_testbeds_rows_have_no_frame(name: str, count: int) -> None:
    assert find_frame(conversations(count, name)) is None
