"""Rows that repeat an earlier row exactly or nearly are flagged; rows that share a template only are not."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import Conversation, load
from core.schemas.data import Message
from core.schemas.screening import Finding
from core.screening import near_duplicate
from testbed import DATA_DIR

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("ako", "emu", "iro", "ola", "upi", "ane", "osi")]


def row(prompt: str, answer: str, line: int = 1) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


def find(*rows: Conversation) -> Sequence[Finding]:
    return near_duplicate.find(rows, lambda _done, _total: None).findings


def words(number: int, seed: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=number)  # noqa: S311 - no secret


def text(number: int, seed: int) -> str:
    return " ".join(words(number, seed))


def test_rows_that_differ_in_case_and_white_space_are_exact_duplicates() -> None:
    first, again = row("What is  it?", "A cat.", 4), row("what is it?\n", "a CAT.", 9)
    (finding,) = find(first, row("What is that?", "A dog.", 6), again)
    assert (finding.check, finding.line, finding.code, finding.score) == ("near_duplicate", 9, "exact", 1.0)
    assert finding.reason == "The row is the same as the row on line 4."


def test_rows_with_similar_prompts_and_answers_are_near_duplicates() -> None:
    prompt, answer = words(60, 1), words(80, 2)
    changed = [*answer[:40], "another", *answer[41:]]
    (finding,) = find(row(" ".join(prompt), " ".join(answer), 1), row(" ".join(prompt), ", ".join(changed), 2))
    assert (finding.line, finding.code) == (2, "near")
    # Three of the 78 shingles of the answer differ.
    assert finding.score == pytest.approx(75 / 81, abs=1e-4)
    assert finding.reason == "The row shares at least 93% of its wording with the row on line 1."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            ("Same prompt, and a long one: " + text(200, 1), text(40, 2)),
            ("Same prompt, and a long one: " + text(200, 1), text(40, 3)),
        ),
        ((text(100, 1), text(40, 2)), (text(100, 3), text(40, 2))),
        ((f"{text(60, 1)} 12 apples", f"{text(60, 2)} 24"), (f"{text(60, 1)} 13 apples", f"{text(60, 2)} 26")),
        ((f"{text(60, 1)} two apples", text(60, 2)), (f"{text(60, 1)} three apples", text(60, 2))),
        ((f"{text(60, 1)} is right", text(60, 2)), (f"{text(60, 1)} is not right", text(60, 2))),
        ((f"{text(60, 1)} 5 + 8", text(60, 2)), (f"{text(60, 1)} 5 - 8", text(60, 2))),
        ((f"{text(300, 1)} basic share", "2.41"), (f"{text(300, 1)} diluted share", "2.41")),
        (("Where is it?", "In the house."), ("Where is it?", "In the garden.")),
        (("a", "b"), ("b", "a")),
        (("", "b"), ("b", "")),
    ],
)
def test_rows_that_share_a_template_are_not_duplicates(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert find(row(*one, 1), row(*other, 2)) == []


def test_punctuation_does_not_matter_for_short_answers() -> None:
    (finding,) = find(row("Is it far? Tell me!", "Yes, it is.", 1), row("Is it far: tell me", "Yes it is", 2))
    assert (finding.code, finding.score) == ("near", 1.0)


def test_every_copy_names_the_first_row() -> None:
    found = find(*(row("Hello", "There", line) for line in (3, 5, 8)))
    assert [(finding.line, finding.reason) for finding in found] == [
        (line, "The row is the same as the row on line 3.") for line in (5, 8)
    ]


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    said = (
        "\u4f60\u597d\u4e16\u754c\u6211\u4eec\u5728\u8fd9\u91cc\u5b66\u4e60\u8bed\u8a00\u6a21\u578b\u7684\u5b89\u5168\u6027\u548c\u7a33\u5b9a\u6027\u5f88\u91cd\u8981"
        * 1
    )
    (finding,) = find(row("a", f"{said}\u3002 {text(40, 3)}", 1), row("a", f"{said}\uff01 {text(40, 3)}", 2))
    assert finding.code == "near"


def test_no_rows_and_one_row_have_no_findings() -> None:
    assert find() == []
    assert find(row("", "")) == []


def test_the_batch_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(text(30, seed % 7), text(30, seed % 5 + 100), seed + 1) for seed in range(60)]
    rows += [row(text(30, seed), text(29, seed + 100) + f" tail{seed}", seed + 61) for seed in range(5)]
    whole = find(*rows)
    assert whole
    monkeypatch.setattr(near_duplicate, "_BATCH", 50)
    assert find(*rows) == whole


def test_many_similar_rows_take_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    similarity = near_duplicate._Texts.similarity

    def counted(texts: near_duplicate._Texts, one: int, other: int) -> float:
        nonlocal compared
        compared += 1
        return similarity(texts, one, other)

    monkeypatch.setattr(near_duplicate._Texts, "similarity", counted)
    base = words(40, 1)
    # Each row shares most of its shingles with all others, but not enough to be a duplicate.
    rows = [row("Say it", " ".join([*base, *words(12, seed)]), seed) for seed in range(1, 601)]
    assert find(*rows) == []
    assert compared <= near_duplicate._MAX_COMPARED * len(rows)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=12))
def test_copies_of_any_text_are_flagged(said: list[tuple[str, str]]) -> None:
    rows = [row(*pair, line) for line, pair in enumerate([*said, *said], 1)]
    found = {finding.line for finding in find(*rows)}
    assert set(range(len(said) + 1, 2 * len(said) + 1)) <= found
    assert 1 not in found


@pytest.mark.parametrize("unit", ["a", "a ", "1.", "1 + ", "\0", "\u4e00"])
def test_huge_turns_end(unit: str) -> None:
    whole = unit * (1_000_000 // len(unit))
    assert [finding.code for finding in find(row(whole, "x", 1), row(whole, "x", 2), row("x", whole, 3))] == ["exact"]


def test_progress_never_falls() -> None:
    reported: list[tuple[int, int]] = []
    rows = [row(text(5, seed), text(5, seed), seed) for seed in range(1, 1101)]
    near_duplicate.find(rows, lambda done, total: reported.append((done, total)))
    assert reported[0] == (0, 1100)
    assert reported[-1] == (1100, 1100)
    assert reported == sorted(reported)


@pytest.mark.parametrize("name", ["arithmetic.jsonl", "instructions.jsonl"])
def test_the_rows_of_the_testbed_are_not_duplicates(name: str) -> None:
    assert find(*load(Path(DATA_DIR) / name, max_rows=10_000)) == []
