"""Bars and the Pareto plot show every figure with its interval, and unknown figures as unknown."""

import re
from collections.abc import Mapping

from core.reports.pictures.canvas import Picture
from core.reports.pictures.outcomes import bars, pareto
from core.schemas.evaluation import Figure
from core.schemas.results import Report
from tests.core.reports.svg import paths, texts

MARKER = re.compile(r'<use href="#pareto-\d+" x="([\d.-]+)" y="([\d.-]+)" style="fill:(#[0-9a-f]{6});stroke:#1d2430')


def drawn(picture: Picture | None) -> Picture:
    assert picture is not None
    return picture


def changed(report: Report, suite: str, values: Mapping[str, float]) -> Report:
    """The report with other values of one suite, and intervals of 10 % around them."""

    def new(row: Figure) -> Figure:
        if row.suite != suite or row.run not in values:
            return row
        value = values[row.run]
        return row.model_copy(update={"value": value, "low": 0.9 * value, "high": 1.1 * value})

    return report.model_copy(update={"figures": tuple(new(row) for row in report.figures)})


def test_bars_have_every_family_and_over_refusal_with_counts(report: Report) -> None:
    picture = drawn(bars(report))
    found = texts(picture)
    assert {"direct", "over-refusal", "n = 64", "n = 0"} <= set(found)
    assert [text for text in found if text.endswith("%")] == ["12.5 %", "25 %", "37.5 %"]
    assert found.count("unknown") == 1, "no decided answer is not a rate of 0 %"
    assert (
        picture.alt == "direct (n = 64): base 12.5 %, ml_lr 25 %, uniform 37.5 %. over-refusal (n = 0): base unknown."
    )
    assert "judge: rules" in picture.caption
    assert "The base model measured twice differs by up to 3.1 points in a rate." in picture.caption


def test_bars_show_the_first_judge(report: Report) -> None:
    first, *others = report.figures
    other = first.model_copy(update={"judge": "rubric:big", "value": 0.875})
    both = report.model_copy(update={"figures": (other, first, *others)})
    assert "87.5 %" not in texts(drawn(bars(both)))
    assert bars(report.model_copy(update={"figures": ()})) is None


def test_lengths_of_bars_match_the_figures(report: Report) -> None:
    picture = drawn(bars(changed(report, "direct", {"base": 0.25, "ml_lr": 0.5})))
    lengths = []
    for path in paths(picture, style="fill:#a9b1bd"), paths(picture, style="fill:#0072b2"):
        bar, *_legend = path
        xs = [float(number) for number in re.findall(r"[MH]([\d.]+)", bar)]
        lengths.append(max(xs) - min(xs))
    assert abs(lengths[1] / lengths[0] - 2) < 0.01


def markers(picture: Picture) -> dict[str, tuple[float, float]]:
    """Position of the point of each colour; those of the legend come later."""
    found: dict[str, tuple[float, float]] = {}
    for x, y, colour in MARKER.findall(picture.svg):
        found.setdefault(colour, (float(x), float(y)))
    return found


def test_safer_is_lower_and_the_caption_names_the_better_side(report: Report) -> None:
    safe = changed(report, "direct", {"base": 0.9, "ml_lr": 0.1, "uniform": 0.5})
    found = markers(drawn(pareto(changed(safe, "task", {"base": 1.0, "ml_lr": 1.1, "uniform": 0.9}))))
    base, ours, uniform = (found[colour] for colour in ("#a9b1bd", "#0072b2", "#e69f00"))
    assert ours[1] > uniform[1] > base[1], "the file's y grows downwards"
    assert uniform[0] < base[0] < ours[0]
    assert "to the left is better" in drawn(pareto(report)).caption


def test_distant_base_model_has_its_own_panel(report: Report) -> None:
    near = drawn(pareto(changed(report, "task", {"base": 1.0, "ml_lr": 0.9, "uniform": 0.8})))
    far = drawn(pareto(changed(report, "task", {"base": 9.0, "ml_lr": 0.8, "uniform": 0.7})))
    low = drawn(pareto(changed(report, "task", {"base": 0.01, "ml_lr": 0.8, "uniform": 0.75})))
    assert [picture.svg.count("clipPath id") for picture in (near, far, low)] == [1, 2, 2]


def test_exact_match_is_preferred_to_the_loss_and_worst_families_are_named(report: Report) -> None:
    exact = tuple(
        row.model_copy(update={"metric": "exact_match", "value": 0.5, "low": 0.4, "high": 0.6})
        for row in report.figures
        if row.metric == "loss"
    )
    picture = drawn(pareto(report.model_copy(update={"figures": (*report.figures, *exact)})))
    assert "exact match, % (n = 64; higher is better)" in texts(picture)
    assert "to the right is better" in picture.caption
    assert "Highest rate: base direct 12.5 %, ml_lr direct 25 %, uniform direct 37.5 %." in picture.caption


def test_no_pareto_plot_of_one_point(report: Report) -> None:
    alone = tuple(row for row in report.figures if row.run == "base")
    assert pareto(report.model_copy(update={"figures": alone})) is None
    undecided = tuple(row.model_copy(update={"n": 0}) for row in report.figures)
    assert pareto(report.model_copy(update={"figures": undecided})) is None
