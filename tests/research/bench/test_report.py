"""The made-up job is the same every time, has what a job has, and its report stays small."""

from core.reports.examples import changed
from core.reports.pictures import draw
from core.reports.render import html
from research.bench.report import made_up


def test_it_is_the_same_every_time_and_as_large_as_was_asked_for() -> None:
    report, evaluations = made_up(1000, 4)
    assert (report, evaluations) == made_up(1000, 4)
    assert [len(each.answers) for each in evaluations] == [200] * 5
    assert len(report.robustness[0].modules) == 28


def test_a_deep_model_of_many_answers_is_a_small_page() -> None:
    report, evaluations = made_up(10_000, 32)
    pictures = draw(report)
    assert list(pictures) == ["bars", "pareto", "robustness", "rates", "losses", "security"]
    assert max(len(picture.svg.encode()) for picture in pictures.values()) < 60_000
    page = html(report, changed(evaluations), pictures)
    assert len(page.encode()) < 2_000_000
    assert page.count("10 of them shown") == 40
