"""The synthetic job is deterministic and complete, and its report stays small."""

from core.reports.examples import changed
from core.reports.pictures import draw
from core.reports.render import html
from research.bench.report import large_report


def test_synthetic_job_is_deterministic_and_has_the_given_size() -> None:
    report, evaluations = large_report(1000, 4)
    assert (report, evaluations) == large_report(1000, 4)
    assert [len(each.answers) for each in evaluations] == [200] * 5
    assert len(report.robustness[0].modules) == 28


def test_deep_model_with_many_answers_is_a_small_page() -> None:
    report, evaluations = large_report(10_000, 32)
    pictures = draw(report)
    assert list(pictures) == ["bars", "pareto", "robustness", "rates", "losses", "security"]
    assert max(len(picture.svg.encode()) for picture in pictures.values()) < 60_000
    page = html(report, changed(evaluations), pictures)
    assert len(page.encode()) < 2_000_000
    assert page.count("10 of them shown") == 40
