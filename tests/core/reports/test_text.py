"""Invisible characters are shown, and all others are unchanged."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.reports.text import cut, fold_thinking, one_line, visible

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
KEPT = "\n\t\u200c\u200d"


@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "L", "Po"])))
def test_no_invisible_character_is_left(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(each) in UNSEEN and each not in KEPT for each in shown)
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a[U+202E]b"),
        ("\x1b[31mred\x07", "[U+001B][31mred[U+0007]"),
        ("\ud800", "[U+D800]"),
        ("\U000e0041", "[U+E0041]"),
        ("\ufeffx\u2028y\r", "[U+FEFF]x[U+2028]y[U+000D]"),
        ("caf\u00e9 \u6f22 \U0001f600 \u05d0\n\tb", "caf\u00e9 \u6f22 \U0001f600 \u05d0\n\tb"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ("", ""),
    ],
)
def test_invisible_characters_become_code_points(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_one_line_is_one_line() -> None:
    assert one_line(" a\r\n\n b\u2028c\t") == "a b c"


@pytest.mark.parametrize(("most", "text"), [(5, "abcde"), (4, "abcd [... 1 more characters]"), (9, "abcde")])
def test_cut_text_says_how_much_is_left_out(most: int, text: str) -> None:
    assert cut("abcde", most) == text


def test_thinking_is_folded_to_its_length_and_other_texts_stay() -> None:
    assert fold_thinking("<think>\nOkay.\n</think>\n\nNo.") == "[5 characters of thinking]\nNo."
    for text in ("No.", "<think>Okay", "<think></think>No."):
        assert fold_thinking(text) == text
