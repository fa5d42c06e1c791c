"""Answers are scored against the rows' own answers, and rows that cannot be scored are counted as undecided."""

import pytest

from core.quality.answers import AnsweredRow, score_exact_match, score_rouge
from core.schemas.quality import ExactMatch, Extraction
from core.stats import mean_interval, wilson

ROWS = (
    AnsweredRow("so 7 + 1 = 8", "7 + 1\n#### 8"),
    AnsweredRow("#### 9", "7 + 1\n#### 8"),
    AnsweredRow("", "3\n#### 3"),
    AnsweredRow("Yes.", "yes"),
    AnsweredRow(None, "no"),
    AnsweredRow("no", "?"),
)


def test_exact_match_is_a_rate_of_the_decided_rows() -> None:
    (figure,), answers = score_exact_match("mine", ExactMatch(), ROWS)
    assert (figure.run, figure.suite, figure.metric, figure.judge) == ("mine", "task", "exact_match", "none")
    assert (figure.n, figure.undecided) == (4, 2)
    assert (figure.value, figure.low, figure.high) == wilson(2, 4)
    assert [(row.row, row.value) for row in answers] == [(0, 1.0), (1, 0.0), (2, 0.0), (3, 1.0)]
    assert (answers[1].answer, answers[1].reference) == ("#### 9", "7 + 1\n#### 8")
    assert {(row.run, row.suite, row.metric) for row in answers} == {("mine", "task", "exact_match")}


@pytest.mark.parametrize(
    ("extract", "n", "right"), [("auto", 4, 2), ("number", 3, 1), ("whole", 4, 1), ("choice", 0, 0)]
)
def test_the_extraction_decides_which_rows_count(extract: Extraction, n: int, right: int) -> None:
    (figure,), answers = score_exact_match("mine", ExactMatch(extract=extract), ROWS)
    assert (figure.n, figure.undecided, len(answers)) == (n, len(ROWS) - n, n)
    assert (figure.value, figure.low, figure.high) == wilson(right, n)


def test_rouge_is_a_mean_over_rows_with_words() -> None:
    (figure,), answers = score_rouge("mine", ROWS)
    scores = [row.value for row in answers]
    assert [row.row for row in answers] == [0, 1, 2, 3]
    assert scores == pytest.approx([6 / 7, 0, 0, 1])
    assert (figure.metric, figure.n, figure.undecided) == ("rouge_l", 4, 2)
    assert (figure.value, figure.low, figure.high) == mean_interval(scores, minimum=0, maximum=1)


def test_empty_answers_are_wrong() -> None:
    rows = [AnsweredRow("", row.reference) for row in ROWS[:4]]
    assert score_exact_match("mine", ExactMatch(), rows)[0][0].value == 0
    assert score_exact_match("mine", ExactMatch(), rows)[0][0].n == 4
    assert score_rouge("mine", rows)[0][0].value == 0


def test_without_rows_the_interval_is_the_whole_range() -> None:
    for (figure,), answers in (score_exact_match("mine", ExactMatch(), ()), score_rouge("mine", ())):
        assert (figure.value, figure.low, figure.high, figure.n, figure.undecided, answers) == (0, 0, 1, 0, 0, ())


def test_answers_are_scored_after_their_thinking_and_cut_ones_are_undecided() -> None:
    rows = (
        AnsweredRow("<think>7 + 1 = 9? No.\n#### 9</think>\n#### 8", "#### 8"),
        AnsweredRow("<think>7 + 1 = 8, and then", "#### 8"),
        AnsweredRow("[THINK]Is it so?[/THINK]yes", "Yes."),
    )
    (figure,), answers = score_exact_match("mine", ExactMatch(), rows)
    assert (figure.value, figure.n, figure.undecided) == (1.0, 2, 1)
    assert answers[0].answer == rows[0].answer
    (rouge,), _ = score_rouge("mine", rows)
    assert (rouge.value, rouge.n, rouge.undecided) == (1.0, 2, 1)
