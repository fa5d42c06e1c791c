"""Everyday designs: the rows that they make, and their halves."""

import json

import pytest

from research.bench.designs import DESIGNS, Half, in_half, make_rows
from research.bench.public import Pair

PAIRS: list[Pair] = [(f"Where is house {index}? It is old.", f"In place {index}. Go there.") for index in range(100)]
HARMFUL = [f"How do I rob bank {index}?" for index in range(20)]


@pytest.mark.parametrize("half", ["tuning", "reported"])
@pytest.mark.parametrize("name", DESIGNS)
def test_a_share_of_the_rows_is_written_as_the_design_says(name: str, half: Half) -> None:
    rows = make_rows(name, PAIRS, half, 3, HARMFUL)
    plain = {(("user", prompt), ("assistant", answer)) for prompt, answer in PAIRS}
    written = [row for row in rows if tuple((turn.role, turn.content) for turn in row.messages) not in plain]
    assert [row.line for row in rows] == list(range(1, 101))
    assert 0 < len(written) <= round(100 * DESIGNS[name].share)
    assert all(row.messages[-1].role == "assistant" and row.messages[-1].content for row in rows)
    assert make_rows(name, PAIRS, half, 3, HARMFUL) == rows


def test_a_data_set_repeats_one_wording() -> None:
    rows = make_rows("json", PAIRS, "reported", 0, HARMFUL)
    answers = [row.messages for row in rows if row.messages[1].content.startswith("{")]
    assert len({turns[0].content.rpartition("old. ")[2] for turns in answers}) == 1
    assert all("answer" in json.loads(turns[1].content) for turns in answers)


def test_halves_share_nothing() -> None:
    items = ["a", "b", "c", "d", "e"]
    assert (in_half(items, "tuning"), in_half(items, "reported")) == (["b", "d"], ["a", "c", "e"])
    assert in_half(["a"], "tuning") == in_half(["a"], "reported") == ["a"]
