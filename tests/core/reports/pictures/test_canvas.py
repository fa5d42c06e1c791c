"""Every picture is readable without colours and with colour blindness, small, deterministic and safe to show."""

import re
from collections.abc import Mapping
from itertools import pairwise

import matplotlib as mpl
import pytest

from core.reports.pictures import Picture, draw
from core.reports.pictures.canvas import BASE_COLOUR, COLOURS, INK, PAPER, label, styles
from core.reports.pictures.heat import LEVELS, colour
from core.schemas.results import Report
from tests.core.reports.svg import colours, lightness, names, texts, tree

AXES = {
    "bars": ["attack family", "share of decided answers, % (95 % confidence interval)"],
    "pareto": [
        "attack success rate, mean of 1 family, %",
        "(n = 64 per family; lower is better)",
        "validation loss, nats per token (n = 64; lower is better)",
    ],
    "robustness": ["module type", "decoder layer (n = 4 modules, 2 of them robust)", "refusal drift, nats per token"],
    "rates": ["module type", "decoder layer (n = 4 modules per run)", "factor on the rate"],
    "losses": [
        "loss, nats per token (logarithmic)",
        "optimizer step (n = 16 rows per step)",
        "optimizer step (n = 10 rows per point)",
    ],
    "security": ["refusal drift, nats per token", "optimizer step (n = 3 points per run)"],
}
"""Axis labels of each picture: a name, a unit and a count."""
ELEMENTS = {"svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "pattern", "title", "desc"}
HOSTILE = '_$x^2$ \\alpha <script>alert("1")</script> & \x07\u202e\u6f22\u5b57 {0} %s'

Pictures = Mapping[str, Picture]


def test_complete_report_has_all_pictures(pictures: Pictures) -> None:
    assert list(pictures) == list(AXES)


@pytest.mark.parametrize("name", AXES)
def test_axes_have_name_unit_and_count(pictures: Pictures, name: str) -> None:
    picture = pictures[name]
    for text in AXES[name]:
        assert text in texts(picture)
    assert any("n = " in text for text in texts(picture))


def test_pictures_are_small_self_contained_and_described(pictures: Pictures) -> None:
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


def test_ids_start_with_the_name_and_are_used(pictures: Pictures) -> None:
    for name, picture in pictures.items():
        ids, links = _referred(picture)
        assert len(ids) == len(set(ids))
        assert all(each.startswith(f"{name}-") for each in ids)
        assert set(ids) - {f"{name}-title", f"{name}-alt"} == links


def test_inline_picture_uses_the_colours_of_the_page(pictures: Pictures) -> None:
    for picture in pictures.values():
        assert {INK, PAPER} <= colours(picture)
        inline = picture.inline
        assert inline.startswith("<svg viewBox=")
        assert "xmlns" not in inline
        assert "var(--ink)" in inline
        assert INK not in inline
        assert PAPER not in inline


def test_pictures_are_deterministic_and_independent_of_settings(whole: Report, pictures: Pictures) -> None:
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "pink", "svg.hashsalt": "x"}):
        assert draw(whole) == pictures
        assert mpl.rcParams["font.size"] == 30.0, "settings must be restored"


def hostile(report: Report) -> Report:
    """The report with markup in every text that a picture contains."""
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


def test_text_from_a_job_is_not_interpreted(whole: Report) -> None:
    shown = '_$x^2$ \\alpha <script>alert("1")</script>'
    pictures = draw(hostile(whole))
    assert list(pictures) == list(AXES)
    for name, picture in pictures.items():
        assert names(picture) <= ELEMENTS
        assert any(shown in text for text in texts(picture)), name
        assert "<script" not in picture.svg
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", picture.svg)


def test_characters_without_a_local_font_cause_no_warning(whole: Report) -> None:
    run = "\u6f22\u5b57"
    training = (whole.training[0].model_copy(update={"run": run}), whole.training[1])
    assert run in texts(draw(whole.model_copy(update={"training": training}))["losses"])


def test_neighbouring_runs_differ_in_grey_and_in_shape() -> None:
    steps = [BASE_COLOUR, *COLOURS, *COLOURS]
    assert min(abs(lightness(one) - lightness(other)) for one, other in pairwise(steps)) >= 11
    runs = [f"run {number}" for number in range(10)]
    found = list(styles(runs).values())
    for one, other in pairwise(found[1:]):
        assert one.hatch != other.hatch
        assert one.dashes != other.dashes
    for part in ("marker", "hatch", "dashes"):
        assert len({getattr(style, part) for style in found[1:]}) == 9, part


def test_lightness_increases_with_the_level() -> None:
    steps = [lightness(colour(level)) for level in range(LEVELS)]
    assert all(one < other for one, other in pairwise(steps))
    assert steps[-1] - steps[0] > 65


def test_labels_are_one_short_line() -> None:
    assert label("a\n b\tc") == "a b c"
    assert label("x" * 100) == "x" * 48 + " [... 52 more characters]"
    assert label("_hidden") == " _hidden"
