"""Results of lm-evaluation-harness, in the format of version 0.4.13, become figures and answers."""

import pytest

from core.quality.harness_scores import convert_results


def entry(name: str, **metrics: object) -> dict[str, object]:
    named = {key.replace("__", ","): value for key, value in metrics.items()}
    return {"name": name, "alias": name, "sample_len": 10, **named}


def choice_sample(row: int, **metrics: float) -> dict[str, object]:
    return {
        "doc_id": row,
        "target": 0,
        "filtered_resps": [(-3.8, False), (-1.5, True), (-6.1, False)],
        "filter": "none",
        **metrics,
    }


def test_every_metric_is_a_figure_with_its_standard_error() -> None:
    results = entry("sums", acc__none=0.6, acc_stderr__none=0.1, acc_norm__none=0.9, acc_norm_stderr__none=0.2)
    figures, answers = convert_results(
        "sums", {"results": {"sums": results}, "samples": {"sums": [choice_sample(0, acc=1.0)]}}, "mine"
    )
    assert [(figure.run, figure.suite, figure.metric, figure.judge) for figure in figures] == [
        ("mine", "lm_eval:sums", "score", "acc,none"),
        ("mine", "lm_eval:sums", "score", "acc_norm,none"),
    ]
    assert [figure.n for figure in figures] == [10, 10]
    assert (figures[0].value, figures[0].low, figures[0].high) == pytest.approx((0.6, 0.404, 0.796))
    assert (figures[1].low, figures[1].high) == pytest.approx((0.508, 1))
    assert answers == ()  # whose would they be?


def test_questions_are_included_with_a_single_metric() -> None:
    results = {"sums": entry("sums", acc__none=0.5, acc_stderr__none=0.1)}
    samples = {
        "sums": [choice_sample(3, acc=1.0), choice_sample(4, acc=0.0), {**choice_sample(5), "acc": float("nan")}]
    }
    figures, answers = convert_results("sums", {"results": results, "samples": samples}, "mine")
    assert len(figures) == 1
    assert [(each.suite, each.metric, each.row, each.value) for each in answers] == [
        ("lm_eval:sums", "score", 3, 1.0),
        ("lm_eval:sums", "score", 4, 0.0),
    ]
    assert (answers[0].answer, answers[0].reference) == ("1", "0")


def test_each_question_counts_under_its_own_filter() -> None:
    sample = {"doc_id": 0, "target": "8", "filtered_resps": ["0 + 3 = 8."], "exact_match": 1.0}
    samples = {"gen": [sample | {"filter": "strict"}, sample | {"filter": "other"}]}
    results = {"gen": entry("gen", exact_match__strict=0.0, exact_match_stderr__strict="N/A")}
    (figure,), (answer,) = convert_results("gen", {"results": results, "samples": samples}, "mine")
    assert (figure.judge, figure.low, figure.high) == ("exact_match,strict", 0, 1)
    assert (answer.answer, answer.reference, answer.value) == ("0 + 3 = 8.", "8", 1.0)


def test_a_value_beyond_a_rate_keeps_its_interval() -> None:
    results = entry("text", word_perplexity__none=12.5, bleu__none=30.0, bleu_stderr__none=2.0, bits__none=float("inf"))
    figures, _ = convert_results("text", {"results": {"text": results}}, "mine")
    assert [(figure.judge, figure.low, figure.high) for figure in figures] == [
        ("word_perplexity,none", 0, 12.5),
        ("bleu,none", pytest.approx(26.08), pytest.approx(33.92)),
    ]


def test_a_group_is_its_own_figure_and_a_tag_is_those_of_its_tasks() -> None:
    parts = {"one": entry("one", acc__none=0.2), "two": entry("two", acc__none=0.4)}
    figures, _ = convert_results("all", {"results": {"all": entry("all", acc__none=0.3), **parts}}, "mine")
    assert [figure.suite for figure in figures] == ["lm_eval:all"]
    for results in (parts, {"all": {"alias": "all"}, **parts}):
        figures, _ = convert_results("all", {"results": results}, "mine")
        assert [figure.suite for figure in figures] == ["lm_eval:one", "lm_eval:two"]


def test_empty_results_have_no_figures() -> None:
    assert convert_results("all", {}, "mine") == ((), ())
