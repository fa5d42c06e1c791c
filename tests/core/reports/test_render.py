"""The page is whole HTML, holds every figure, needs nothing from anywhere, and escapes what a job brought along."""

import re
from html.parser import HTMLParser

import pytest
from typing_extensions import override

from core.reports import view
from core.reports.render import html
from core.spec.results import Report
from core.spec.safeguards import ConstrainedFirstTokens, Safeguards, SafeTemplate
from core.spec.strategy import MlLrStrategy

HELD = ConstrainedFirstTokens()
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps what is in them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_page_is_whole_and_holds_every_figure(report: Report) -> None:
    page = Page(html(report))
    text = words(page.text)
    for row in (*view.table(report), *view.categories(report)):
        assert row.title in text
        for cell in row.cells:
            if cell:
                assert words(f"{cell.value}{cell.interval}{cell.detail}{cell.change}") in text
    for arm in view.arms(report):
        assert ("th", {"scope": "col"}) in page.tags
        assert arm in text
    for result in report.training:
        assert f"{len(result.plan.full_rate)} of {len(result.plan.scales)}" in text
    assert "2 of 4 modules are robust" in text
    assert "q 2/2, v 0/1, own 0/1" in text
    assert "AUROC 0.531, asked for 0.90" in text
    assert "gradient (probe of 45 steps, stretched 2.5 times in the search)" in text
    assert "budget: 35 % of the joint drift" in text
    assert "q-1.0001.5002 of 2 layer 04.0001.5001 of 2" in text
    assert "local pass3layers.1.own 0.5001.125yes" in text.replace("</td>", "")
    assert "Too few answers were decided." in text
    assert "rules, rubric:bigbase90.0 % 0.8060" in text
    assert "unknown: one of them always says the same" in text
    assert "rubric:bigrubric 1, bigbase6400 12,345, 0" in text
    assert report.data.sample in page.text
    assert report.model.sha256 in text
    assert report.dataset.sha256 in text
    assert '"compare"' in text
    assert sum(tag == "polyline" for tag, _ in page.tags) == 2
    squares = [attrs for tag, attrs in page.tags if tag == "div" and "square" in (attrs.get("class") or "").split()]
    assert len(squares) == 4
    assert sum("robust" in (attrs["class"] or "").split() for attrs in squares) == 2


def test_the_page_needs_nothing_from_anywhere(report: Report) -> None:
    text = html(report)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|//|url\(|@import|javascript:", text)
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in page.tags for name in attrs)


EVIL = '</pre><script>alert(1)</script><img src=x onerror=alert(2)>" onmouseover="alert(3)'


@pytest.mark.parametrize("place", ["sample", "prompt_set", "system_prompt", "module", "device", "source"])
def test_what_a_job_brought_along_is_text_and_nothing_else(report: Report, place: str) -> None:
    plain = {tag for tag, _ in Page(html(report)).tags}
    match place:
        case "sample":
            hostile = report.model_copy(update={"data": report.data.model_copy(update={"sample": EVIL})})
        case "system_prompt":
            security = report.spec.security.model_copy(update={"system_prompt": EVIL})
            hostile = report.model_copy(update={"spec": report.spec.model_copy(update={"security": security})})
        case "module":
            result = report.robustness[0]
            modules = tuple(row.model_copy(update={"module": EVIL, "type": EVIL}) for row in result.modules)
            hostile = report.model_copy(update={"robustness": (result.model_copy(update={"modules": modules}),)})
        case "source":
            hostile = report.model_copy(update={"model": report.model.model_copy(update={"source": EVIL})})
        case _:
            hostile = report.model_copy(update={place: EVIL})
    text = html(hostile)
    page = Page(text)
    assert "<script" not in text
    assert {tag for tag, _ in page.tags} <= plain
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "alert(1)" in page.text


def test_a_map_that_tells_nothing_apart_says_so(report: Report) -> None:
    note = "tells no module from another"
    assert note not in words(Page(html(report)).text)
    result = report.robustness[0]
    first = result.trace[0].model_copy(update={"drift": 0.0, "limit": 0.0, "accepted": True})
    flat = result.model_copy(update={"trace": (first,)})
    assert note in words(Page(html(report.model_copy(update={"robustness": (flat,)}))).text)


def test_a_map_by_share_or_without_groups_is_a_page_too(report: Report) -> None:
    result = report.robustness[0]
    analysis = result.analysis.model_copy(update={"parameter_share": 0.4})
    plain = result.model_copy(update={"analysis": analysis, "groups": (), "chosen": (), "probe_steps": ()})
    text = words(Page(html(report.model_copy(update={"robustness": (plain,)}))).text)
    assert "share: 40 % of the parameters" in text
    assert "moved as one" not in text
    assert "probe of" not in text


def test_arms_are_named_by_what_they_are(report: Report) -> None:
    text = words(Page(html(report)).text)
    assert "tuned with ml_lr on 90 rows" in text
    assert "nothing to protect" not in text
    assert "plain one" not in text
    template = SafeTemplate(system_prompt=EVIL)
    strategy = MlLrStrategy(safeguards=Safeguards(safe_template=template, constrained_first_tokens=HELD))
    guarded = report.model_copy(update={"spec": report.spec.model_copy(update={"strategy": strategy})})
    page = html(guarded)
    text = words(Page(page).text)
    assert "tuned with ml_lr + first_tokens + safe_template on 90 rows" in text
    assert "Figurebaseml_lrml_lr + first_tokens + safe_templateuniform" in text.replace(" Figure", "Figure")
    assert "ml_lr was tuned without a system prompt" in text
    assert "alert(1)" in text
    assert "<script" not in page


def test_what_the_figures_do_not_mean_is_said(report: Report) -> None:
    first, *others = report.figures
    open_base = first.model_copy(update={"value": 0.75})
    plain = report.model.model_copy(update={"chat_template": "plain"})
    text = words(Page(html(report.model_copy(update={"figures": (open_base, *others), "model": plain}))).text)
    assert "nothing to protect here: the base model itself complies with 75 % of the harmful prompts" in text
    assert "holds for it alone" in text


def test_a_report_of_a_plain_job_has_no_map(report: Report) -> None:
    text = words(Page(html(report.model_copy(update={"robustness": ()}))).text)
    assert "Which modules are robust" not in text
    assert "No robustness map" not in text
