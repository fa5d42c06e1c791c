"""ROUGE-L equals Google's rouge-score without its stemmer, and the longest common subsequence equals a recursion."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.quality.rouge import lcs_length, rouge_l, split_words

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


def slow_common(one: list[str], other: list[str]) -> int:
    """The textbook recursion."""

    @cache
    def longest(left: int, right: int) -> int:
        if left == len(one) or right == len(other):
            return 0
        if one[left] == other[right]:
            return 1 + longest(left + 1, right + 1)
        return max(longest(left + 1, right), longest(left, right + 1))

    return longest(0, 0)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [  # by rouge-score 0.1.2, use_stemmer=False
        ("the cat sat on the mat", "the cat was on the mat", 0.8333333333333334),
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("It's 3.5 mg, twice a day!", "Take 3.5 mg twice daily, it's enough.", 0.47058823529411764),
        ("a b c a b c", "c b a c b a", 0.5),
        ("Yes", "No", 0.0),
        ("one", "one two three four five six seven eight nine ten", 0.18181818181818182),
        ("A_B c-d", "a b c d", 1.0),
    ],
)
def test_it_equals_the_usual_package(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)


@given(WORDS, WORDS)
def test_lcs_length_equals_a_reference_implementation(one: list[str], other: list[str]) -> None:
    assert lcs_length(one, other) == slow_common(one, other) == lcs_length(other, one)


@given(st.text(max_size=40), st.text(max_size=40))
def test_it_is_between_0_and_1_and_1_for_the_same_words(one: str, other: str) -> None:
    assert 0 <= rouge_l(one, other) <= 1
    assert rouge_l(one, other) == rouge_l(other, one)
    assert rouge_l(one, f"{one}!") == (1 if split_words(one) else 0)


def test_words_of_any_script_count_without_case_and_punctuation() -> None:
    assert split_words("Ärzte, sagen: «да» 3x!") == ["ärzte", "sagen", "да", "3x"]
    assert rouge_l("Он сказал да", "он да") == pytest.approx(0.8)


@pytest.mark.parametrize("empty", ["", " \n", "?!", "_"])
def test_a_text_without_words_has_nothing_in_common(empty: str) -> None:
    assert rouge_l(empty, "word") == rouge_l("word", empty) == rouge_l(empty, empty) == 0


def test_long_texts_are_fast() -> None:
    text = " ".join(str(number % 97) for number in range(20_000))
    assert rouge_l(text, text + " end") == pytest.approx(40_000 / 40_001)
