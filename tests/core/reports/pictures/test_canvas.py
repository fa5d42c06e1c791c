"""Every picture: readable without colours and by everybody's eyes, small, the same every time, and safe to be shown."""

import re
from collections.abc import Mapping
from itertools import pairwise

import matplotlib as mpl
import pytest

from core.reports.pictures import Picture, draw
from core.reports.pictures.canvas import BASE_COLOUR, COLOURS, INK, PAPER, percent, styles, words
from core.reports.pictures.heat import LEVELS, colour
from core.schemas.results import Report
from tests.core.reports.svg import colours, lightness, names, texts, tree

AXES = {
    "bars": ["attack family", "share of the prompts that a judge decided on, % (95 % interval)"],
    "pareto": [
        "attack success, mean of 1 family, %",
        "(n = 64 a family; lower is better)",
        "validation loss, nats per token (n = 64; lower is better)",
    ],
    "robustness": ["module type", "decoder layer (n = 4 modules, 2 of them chosen)", "refusal drift, nats per token"],
    "rates": ["module type", "decoder layer (n = 4 modules of each arm)", "factor on the rate"],
    "losses": [
        "loss, nats per token (logarithmic)",
        "optimizer step (n = 16 rows a step)",
        "optimizer step (n = 10 rows a point)",
    ],
    "security": ["refusal drift, nats per token", "optimizer step (n = 3 readings an arm)"],
}
"""What stands at the axes of each picture: a name, a unit, and how many."""
ELEMENTS = {"svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "pattern", "title", "desc"}
HOSTILE = '_$x^2$ \\alpha <script>alert("1")</script> & \x07\u202e\u6f22\u5b57 {0} %s'

Pictures = Mapping[str, Picture]


def test_a_report_has_all_of_them(pictures: Pictures) -> None:
    assert list(pictures) == list(AXES)


@pytest.mark.parametrize("name", AXES)
def test_each_axis_says_what_it_shows_in_which_unit_and_of_how_many(pictures: Pictures, name: str) -> None:
    picture = pictures[name]
    for label in AXES[name]:
        assert label in texts(picture)
    assert any("n = " in text for text in texts(picture))


def test_each_is_small_closed_and_told_in_words(pictures: Pictures) -> None:
    for picture in pictures.values():
        assert len(picture.svg.encode()) < 60_000
        assert names(picture) <= ELEMENTS
        assert picture.svg.count("http") == 1, "the namespace and nothing else"
        assert "<!--" not in picture.svg
        title, desc, *_ = tree(picture)
        assert (title.text, desc.text) == (picture.title, picture.alt)
        root = tree(picture)
        assert root.get("role") == "img"
        assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
        assert len(picture.alt) > 40
        assert picture.caption.endswith(".")


def _referred(picture: Picture) -> tuple[list[str], set[str]]:
    ids = [element.get("id", "") for element in tree(picture).iter() if "id" in element.attrib]
    links = set(re.findall(r'(?:url\(|href=")#([\w-]+)', picture.svg))
    return ids, links


def test_ids_are_of_the_picture_and_all_are_used(pictures: Pictures) -> None:
    for name, picture in pictures.items():
        ids, links = _referred(picture)
        assert len(ids) == len(set(ids))
        assert all(each.startswith(f"{name}-") for each in ids)
        assert set(ids) - {f"{name}-title", f"{name}-alt"} == links


def test_inside_a_page_it_takes_the_colours_of_the_page(pictures: Pictures) -> None:
    for picture in pictures.values():
        assert {INK, PAPER} <= colours(picture)
        inline = picture.inline
        assert inline.startswith("<svg viewBox=")
        assert "xmlns" not in inline
        assert "var(--ink)" in inline
        assert INK not in inline
        assert PAPER not in inline


def test_the_same_report_is_the_same_file_whatever_the_settings_are(whole: Report, pictures: Pictures) -> None:
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "pink", "svg.hashsalt": "x"}):
        assert draw(whole) == pictures
        assert mpl.rcParams["font.size"] == 30.0, "and it leaves them as they are"


def hostile(report: Report) -> Report:
    """Every text that a picture writes is one that wants to be something else."""
    second = report.training[1]
    plan = second.plan.model_copy(update={"strategy": HOSTILE, "scales": dict(report.training[0].plan.scales)})
    training = (report.training[0], second.model_copy(update={"run": HOSTILE, "plan": plan}))
    figures = tuple(
        row.model_copy(update={"run": HOSTILE if row.run == "uniform" else row.run, "judge": HOSTILE})
        for row in report.figures
    )
    named = tuple(row.model_copy(update={"suite": HOSTILE}) if row.suite == "direct" else row for row in figures)
    maps = tuple(
        result.model_copy(
            update={"modules": tuple(row.model_copy(update={"type": f"{HOSTILE}{row.type}"}) for row in result.modules)}
        )
        for result in report.robustness
    )
    return report.model_copy(update={"training": training, "figures": named, "robustness": maps})


def test_texts_of_a_job_are_written_as_they_are_and_nothing_else(whole: Report) -> None:
    shown = '_$x^2$ \\alpha <script>alert("1")</script>'
    pictures = draw(hostile(whole))
    assert list(pictures) == list(AXES)
    for name, picture in pictures.items():
        assert names(picture) <= ELEMENTS
        assert any(shown in text for text in texts(picture)), name
        assert "<script" not in picture.svg
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", picture.svg)


def test_letters_that_no_font_at_hand_has_are_no_warning(whole: Report) -> None:
    run = "\u6f22\u5b57"
    training = (whole.training[0].model_copy(update={"run": run}), whole.training[1])
    assert run in texts(draw(whole.model_copy(update={"training": training}))["losses"])


def test_neighbours_differ_in_grey_and_in_more_than_colour() -> None:
    steps = [BASE_COLOUR, *COLOURS, *COLOURS]
    assert min(abs(lightness(one) - lightness(other)) for one, other in pairwise(steps)) >= 11
    runs = [f"arm {number}" for number in range(10)]
    found = list(styles(runs).values())
    for one, other in pairwise(found[1:]):
        assert one.hatch != other.hatch
        assert one.dashes != other.dashes
    for part in ("marker", "hatch", "dashes"):
        assert len({getattr(style, part) for style in found[1:]}) == 9, part


def test_a_brighter_cell_is_more_in_grey_too() -> None:
    steps = [lightness(colour(level)) for level in range(LEVELS)]
    assert all(one < other for one, other in pairwise(steps))
    assert steps[-1] - steps[0] > 65


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0 %"), (0.025, "2.5 %"), (0.5, "50 %"), (0.9996, "100 %"), (1.0, "100 %")]
)
def test_rates_are_short(rate: float, text: str) -> None:
    assert percent(rate) == text


def test_words_are_one_line_and_not_too_long() -> None:
    assert words("a\n b\tc") == "a b c"
    assert words("x" * 100) == "x" * 48 + " [... 52 more characters]"
    assert words("_hidden") == " _hidden"
