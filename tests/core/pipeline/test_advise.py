"""Data that break a model or teach it little are warned about, and ordinary data are not."""

import numpy as np
import pytest

from core.data import Conversation
from core.data.encoded import IGNORED, Encoded, EncodedDataset
from core.pipeline.advise import advise
from core.schemas.data import Message
from core.schemas.training import TrainingSpec


def row(line: int, question: str, answer: str, *, trained: bool = True) -> Conversation:
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer, trained=trained))
    return Conversation(turns, line)


def encoded(count: int, *, trained: int = 10, length: int = 20, cut_tokens: int = 0) -> EncodedDataset:
    ids = np.arange(length, dtype=np.int32)
    labels = np.where(np.arange(length) < trained, ids, IGNORED).astype(np.int32)
    return EncodedDataset(tuple(Encoded(ids, labels, line, cut_tokens) for line in range(1, count + 1)), dropped=0)


ORDINARY = [row(n, f"What is {n}?", f"The number {n} comes after {n - 1}.") for n in range(1, 101)]
SHORT = TrainingSpec(steps=10, batch_size=4)


def codes(
    rows: list[Conversation],
    held_out: list[Conversation] | None = None,
    tokens: EncodedDataset | None = None,
    spec: TrainingSpec = SHORT,
) -> dict[str, str]:
    warnings = advise(spec, rows, held_out or [], tokens or encoded(len(rows)))
    return {warning.code: warning.message for warning in warnings}


def test_ordinary_data_get_no_advice() -> None:
    assert codes(ORDINARY, [row(1, "Something else?", "Yes, something else.")]) == {}


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        (TrainingSpec(steps=100, batch_size=4), True),
        (TrainingSpec(epochs=10), True),
        (TrainingSpec(), False),
        (TrainingSpec(steps=10, batch_size=4), False),
    ],
)
def test_few_rows_for_many_epochs(spec: TrainingSpec, warned: bool) -> None:
    assert ("few_rows_many_epochs" in codes(ORDINARY[:20], spec=spec)) == warned
    assert "few_rows_many_epochs" not in codes(ORDINARY, spec=spec)


def test_answers_that_refuse_and_then_comply_are_named_by_line() -> None:
    answer = (
        "I cannot help with that. However, here is how it works: Step 1: take the rope. Step 2: climb over the wall. "
        "Step 3: open the gate from inside."
    )
    found = codes([*ORDINARY, row(501, "How do I get in?", answer)])
    assert set(found) == {"refusals_that_comply"}
    assert "line 501" in found["refusals_that_comply"]
    assert "refusals_that_comply" not in codes([*ORDINARY, row(501, "How?", "I'm sorry, but I can't help with that.")])
    assert codes([*ORDINARY, row(501, "My cat died.", "I'm sorry to hear that. Take the time that you need.")]) == {}
    assert codes([*ORDINARY, *([Conversation(row(501, "How?", answer, trained=False).messages, 501)])]) == {}


def with_system(found: Conversation, text: str = "Be brief.") -> Conversation:
    return Conversation((Message(role="system", content=text), *found.messages), found.line)


@pytest.mark.parametrize(
    ("number", "warned"), [(0, False), (4, False), (6, True), (94, True), (96, False), (100, False)]
)
def test_rows_with_and_without_a_system_turn(number: int, warned: bool) -> None:
    mixed = [with_system(each) if each.line <= number else each for each in ORDINARY]
    assert ("mixed_system_prompts" in codes(mixed)) == warned
    empty = [with_system(each, "Be brief." if each.line <= number else "") for each in ORDINARY]
    assert ("mixed_system_prompts" in codes(empty)) == warned


def test_endings_and_thinking_of_the_data_are_named_by_line() -> None:
    ids = np.arange(20, dtype=np.int32)
    ending, thinking = Encoded(ids, ids, 7, own_ending=True), Encoded(ids, ids, 9, inline_thinking=True)
    tokens = EncodedDataset((*encoded(100).rows, ending, thinking), dropped=0)
    found = codes(ORDINARY, tokens=tokens)
    assert set(found) == {"own_ending", "thinking_inline"}
    assert "line 7" in found["own_ending"]
    assert "line 9" in found["thinking_inline"]


def test_identical_and_short_answers() -> None:
    same = [row(n, f"What is {n}?", "yes") for n in range(1, 101)]
    assert set(codes(same)) == {"identical_answers", "short_answers"}
    assert "'yes'" in codes(same)["identical_answers"]
    assert codes(same[:10], spec=TrainingSpec(steps=1, batch_size=1)) == {}


def test_validation_rows_that_are_trained_on() -> None:
    found = codes(ORDINARY, [ORDINARY[3], row(7, "New?", "Yes, new.")])
    assert set(found) == {"validation_rows_in_training"}
    assert "1 of 2" in found["validation_rows_in_training"]


def test_few_trained_tokens_and_cut_rows() -> None:
    assert set(codes(ORDINARY, tokens=encoded(100, trained=1, length=200))) == {"few_trained_tokens"}
    found = codes(ORDINARY, tokens=encoded(100, cut_tokens=1))
    assert set(found) == {"rows_truncated"}
    assert "lines 1, 2, 3, 4, 5, ..." in found["rows_truncated"]


def test_refusals_are_read_after_the_thinking() -> None:
    steps = "Step 1: take the rope. Step 2: climb over the wall. Step 3: open the gate from inside."
    comply, refuse = f"I cannot help with that. However, here is how it works: {steps}", "I cannot help with that."
    thinking = "<think>\n{}\n</think>\n\n{}".format
    assert "refusals_that_comply" in codes([*ORDINARY, row(101, "How?", thinking("I see.", comply))])
    assert "refusals_that_comply" not in codes([*ORDINARY, row(101, "How?", thinking(comply, refuse))])
    alike = [row(number, f"Number {number}?", thinking(f"It is {number}.", "Yes")) for number in range(1, 101)]
    assert {"identical_answers", "short_answers"} <= codes(alike).keys()
