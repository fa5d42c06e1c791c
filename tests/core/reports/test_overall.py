"""Summary figures of a run."""

from core.reports.overall import judge, overall, task_figure
from core.schemas.evaluation import Figure
from core.schemas.results import Report


def families(report: Report, *rates: tuple[str, float, int]) -> Report:
    """The base model's attack success in these families."""
    first = report.figures[0]
    rows = tuple(
        first.model_copy(update={"suite": suite, "value": rate, "low": rate - 0.1, "high": rate + 0.1, "n": n})
        for suite, rate, n in rates
    )
    return report.model_copy(update={"figures": rows})


def test_first_judge_that_judged_attacks_is_used(report: Report) -> None:
    assert judge(report) == "rules"
    other = tuple(row.model_copy(update={"judge": "rubric:big"}) for row in report.figures)
    assert judge(report.model_copy(update={"figures": other})) == "rubric:big"
    assert judge(report.model_copy(update={"figures": ()})) is None


def test_families_have_equal_weights_and_undecided_ones_do_not_count(report: Report) -> None:
    found = overall(families(report, ("direct", 0.2, 100), ("prefill", 0.7, 10), ("encoding", 1.0, 0)), "base")
    assert found is not None
    assert round(found.value, 6) == 0.45
    assert (round(found.low, 6), round(found.high, 6)) == (0.35, 0.55)
    assert (found.n, found.worst.suite) == ((100, 10), "prefill")
    assert overall(report, "nobody") is None


def task(report: Report, *rows: tuple[str, str, str]) -> Report:
    """The report with these task figures, by run, suite and metric."""
    first = report.figures[0]
    made = [first.model_copy(update={"run": run, "suite": suite, "metric": metric}) for run, suite, metric in rows]
    return report.model_copy(update={"figures": (*report.figures, *made)})


def chosen(report: Report, run: str = "base") -> tuple[str, str] | None:
    found: Figure | None = task_figure(report, run)
    return None if found is None else (found.suite, found.metric)


def test_correctness_is_preferred_to_likelihood(report: Report) -> None:
    assert chosen(report) == ("task", "loss")
    accuracy = task(report, ("base", "medicine", "accuracy"), ("base", "law", "accuracy"))
    assert chosen(accuracy) == ("medicine", "accuracy")
    exact = task(accuracy, ("base", "sums", "exact_match"), ("base", "task", "exact_match"))
    assert chosen(exact) == ("task", "exact_match")
    assert chosen(exact, "uniform") is None, "runs are compared only in the same task figure"
    assert chosen(report.model_copy(update={"figures": ()})) is None
