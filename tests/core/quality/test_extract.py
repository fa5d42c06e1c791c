"""Equal answers are extracted as equal and different ones as different, and pathological texts are fast."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.quality.extract import extract, extract_choice, extract_number, normalize_answer, resolve_extraction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 18", "18"),
        ("first 5, then 6 apples.", "6"),
        ("3 is right\n#### 4 of 9", "4"),
        ("#### 1\nno:\n#### 2", "2"),
        ("he has 7\n#### none", None),
        ("$1,234.50", "1234.5"),
        ("1,234,567.00 dollars", "1234567"),
        ("1,234,5", "5"),
        ("It is 18.", "18"),
        ("-5", "-5"),
        ("it is \u22123", "-3"),
        ("+7", "7"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("£ 5", "5"),
        ("10-5", "5"),
        ("10 - 5", "5"),
        ("- 5 apples", "5"),
        ("50%", "50"),
        ("-0", "0"),
        ("0.0", "0"),
        (".5", "0.5"),
        ("007", "7"),
        ("1e3", "1000"),
        ("25e-1", "2.5"),
        ("3/4", "3/4"),
        ("(3/4).", "3/4"),
        ("16/2=8", "8"),
        ("on 12/05/2020", "2020"),
        ("48/2 = <<48/2=24>>24 clips", "24"),
        ("\\boxed{42}", "42"),
        ("9" * 40 + ".10", "9" * 40 + ".1"),
        ("", None),
        ("none at all", None),
    ],
)
def test_numbers(text: str, expected: str | None) -> None:
    assert extract_number(text) == expected


@given(st.integers(min_value=-(10**40), max_value=10**40), st.sampled_from(["", "$", "€", "€ "]))
def test_an_integer_is_the_same_in_any_notation(value: int, currency: str) -> None:
    sign, digits = "-" if value < 0 else "", abs(value)
    ways = (
        f"{value}",
        f"{value:,}",
        f"{value}.00",
        f"{value:,}.0%",
        f"so {sign}{currency}{digits:,}.",
        f"#### {value}",
    )
    assert {extract_number(way) for way in ways} == {str(value)}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_decimals_differ_only_in_value(value: object) -> None:
    text = f"{value:f}"
    found = extract_number(text)
    assert found is not None
    assert float(found) == float(text)
    assert extract_number(f"{text}0") == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("b", "B"),
        (" b. ", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("I", "I"),
        ("B)", "B"),
        ("B) The liver", "B"),
        ("b) the liver", "B"),
        ("B. The liver, not A", "B"),
        ("B: the liver", "B"),
        ("B\n\nThe liver does that.", "B"),
        ("Option C, since", "C"),
        ("Answer: B", "B"),
        ("Answer:\n\n**D**", "D"),
        ("Answer: A because it is", "A"),
        ("The answer is (C).", "C"),
        ("The answer is option C", "C"),
        ("The correct option is D since", "D"),
        ("The best choice would be J", "J"),
        ("A) is tempting, but the answer is B", "B"),
        ("The answer is A. No: the answer is E", "E"),
        ("\\boxed{C}", "C"),
        ("I think B", "B"),
        ("answer: I think it is D.", "D"),
        ("It must be (F) here", "F"),
        ("A dog", None),
        ("I am not sure", None),
        ("Option A is wrong", None),
        ("The answer is not A", None),
        ("the answer is A's own", None),
        ("e.g. this", None),
        ("K", None),
        ("Because", None),
        ("", None),
    ],
)
def test_choices(text: str, expected: str | None) -> None:
    assert extract_choice(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("New York.", "new  york"),
        ("ice-cream", "Ice Cream"),
        ("Don't!", "dont"),
        ("a , b", "A,B"),
        ("Straße", "STRASSE"),
        ("Route 66", "route66"),
        ("\uff11\uff12", "12"),
        ("\u22125", "-5"),
        ("`yes`", "Yes"),
    ],
)
def test_equal_answers(one: str, other: str) -> None:
    assert normalize_answer(one) == normalize_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.5", "15"), ("1 5", "15"), ("-5", "5"), ("3/4", "34"), ("a+b", "ab"), ("yes", "no"), ("कि", "की")],
)
def test_different_answers(one: str, other: str) -> None:
    assert normalize_answer(one) != normalize_answer(other)


@given(st.text())
def test_extraction_accepts_any_text(text: str) -> None:
    assert extract_number(text) == extract_number(f"{text}\n")
    assert extract_choice(text) in (*"ABCDEFGHIJ", None)
    assert normalize_answer(f"  {text}. ") == normalize_answer(text)


def test_auto_depends_on_the_rows_own_answer() -> None:
    assert resolve_extraction("auto", "so\n#### 5") == "number"
    assert resolve_extraction("auto", "5") == "whole"
    assert resolve_extraction("choice", "#### 5") == "choice"
    assert extract("It is 5", "number") == extract("5", "whole") == "5"
    assert extract("(B)", "choice") == "B"
    assert extract("?!", "whole") is None


@pytest.mark.parametrize(
    "odd",
    [
        "." * 50_000,
        "answer" + "." * 50_000,
        "answer " * 8000,
        "9" * 50_000,
        "9," * 25_000,
        "(A" * 25_000,
        "A . " * 12_000,
    ],
)
def test_pathological_texts_are_fast(odd: str) -> None:
    begun = time.monotonic()
    extract_number(odd), extract_choice(odd), normalize_answer(odd)
    assert time.monotonic() - begun < 10  # tried in every way, they would take days


def test_gsm8k_answers_are_extracted(public_data: Path) -> None:
    rows = [
        json.loads(line) for line in (public_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) > 1000
    for row in rows:
        assert resolve_extraction("auto", row["answer"]) == "number"
        assert extract_number(row["answer"]) == row["answer"].rpartition("####")[2].strip().replace(",", "")
