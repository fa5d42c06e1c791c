"""The page is valid and self-contained HTML with all figures and decisions, and escapes text from jobs."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from typing_extensions import override

from core.reports import view
from core.reports.examples import Example, changed
from core.reports.pictures import Picture, draw
from core.reports.render import html
from core.schemas.data import Message
from core.schemas.evaluation import Evaluation
from core.schemas.gate import GateReason
from core.schemas.results import Report
from core.schemas.safeguards import ConstrainedFirstTokens, Safeguards, SafeTemplate
from core.schemas.strategy import MlLrStrategy

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects tags and text."""

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
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def render(report: Report, examples: Sequence[Example] = ()) -> str:
    """The page without pictures, which take most of the time."""
    return html(report, examples, {})


def with_answer(example: Example, **change: object) -> Example:
    return replace(example, answer=example.answer.model_copy(update=change))


def words(text: str) -> str:
    return " ".join(text.split())


def test_page_has_every_figure(report: Report) -> None:
    page = Page(html(report, (), draw(report)))
    text = words(page.text)
    for row in (*view.table(report), *view.categories(report)):
        assert row.title in text
        for cell in row.cells:
            if cell:
                assert words(f"{cell.value}{cell.interval}{cell.detail}{cell.change}") in text
    for run in view.runs(report):
        assert ("th", {"scope": "col"}) in page.tags
        assert run in text
    for result in report.training:
        assert f"{len(result.plan.full_rate)} of {len(result.plan.scales)}" in text
    assert "2 of 4 modules are robust" in text
    assert "q 2/2, v 0/1, own 0/1" in text
    assert "AUROC 0.531, required 0.90" in text
    assert "gradient (probe of 45 steps, update scale 2.5 in the search)" in text
    assert "budget: 35 % of the joint drift" in text
    assert "q-1.0001.5002 of 2 layer 04.0001.5001 of 2" in text
    assert "local pass3layers.1.own 0.5001.125yes" in text.replace("</td>", "")
    assert "Too few answers were decided." in text
    assert "rules, rubric:bigbase90 % 0.8060" in text
    assert "undefined: one judge always gave the same verdict" in text
    assert "rubric:bigrubric 1, bigbase6400 12,345, 0" in text
    assert report.data.sample in page.text
    assert report.model.sha256 in text
    assert report.dataset.sha256 in text
    assert '"compare"' in text
    assert [attrs["aria-labelledby"] for tag, attrs in page.tags if tag == "svg"] == [
        f"{name}-title {name}-alt" for name in ("bars", "pareto", "losses", "rates", "robustness")
    ]
    for module in report.robustness[0].modules:
        robust = "robust" if module.module in report.robustness[0].robust else "not robust"
        figures = (module.refusal_drift, module.feature_drift, module.task_gain)
        assert f"{module.module}{''.join(f'{figure:.3f}' for figure in figures)}{robust} " in text


def test_ids_are_unique_and_links_stay_on_the_page(whole: Report) -> None:
    page = Page(html(whole, (), draw(whole)))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert len(links) == 7
    assert {f"#{name}" for name in ids} >= set(links)


def test_page_is_self_contained(whole: Report, evaluations: Sequence[Evaluation]) -> None:
    text = html(whole, changed(evaluations), draw(whole))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|//|url\((?!#)|@import|javascript:", text)
    assert not any(name.startswith("on") or name in ("src", "srcset") for _, attrs in page.tags for name in attrs)
    assert all(str(attrs["href"]).startswith("#") for _, attrs in page.tags if "href" in attrs)
    assert text.count("<style") == 1, "a picture's own style sheet would change the page"


EVIL = '</pre><script>alert(1)</script><img src=x onerror=alert(2)>" onmouseover="alert(3)'


@pytest.mark.parametrize("place", ["sample", "prompt_set", "system_prompt", "module", "device", "source"])
def test_text_from_a_job_is_escaped(report: Report, pictures: Mapping[str, Picture], place: str) -> None:
    plain = {tag for tag, _ in Page(html(report, (), pictures)).tags}
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
    # Of these texts, pictures contain only module types.
    text = html(hostile, (), draw(hostile)) if place == "module" else render(hostile)
    page = Page(text)
    assert "<script" not in text
    assert {tag for tag, _ in page.tags} <= plain
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "alert(1)" in page.text


def test_map_that_cannot_distinguish_modules_says_so(report: Report) -> None:
    note = "cannot distinguish modules"
    assert note not in words(Page(render(report)).text)
    result = report.robustness[0]
    first = result.trace[0].model_copy(update={"drift": 0.0, "limit": 0.0, "accepted": True})
    flat = result.model_copy(update={"trace": (first,)})
    assert note in words(Page(render(report.model_copy(update={"robustness": (flat,)}))).text)


def test_map_by_parameter_share_without_groups(report: Report) -> None:
    result = report.robustness[0]
    analysis = result.analysis.model_copy(update={"parameter_share": 0.4})
    assert "Agreement of the map between" in words(Page(render(report)).text)
    empty: dict[str, object] = dict.fromkeys(("groups", "chosen", "probe_steps", "stability"), ())
    plain = result.model_copy(update={"analysis": analysis} | empty)
    text = words(Page(render(report.model_copy(update={"robustness": (plain,)}))).text)
    assert "share: 40 % of the parameters" in text
    assert "Group, perturbed" not in text
    assert "Agreement of the map between" not in text
    assert "probe of" not in text


def test_runs_are_named_by_strategy_and_safeguards(report: Report) -> None:
    text = words(Page(render(report)).text)
    assert "fine-tuned with ml_lr on 90 rows" in text
    assert "little safety to protect" not in text
    assert "plain template" not in text
    template = SafeTemplate(system_prompt=EVIL)
    strategy = MlLrStrategy(safeguards=Safeguards(ConstrainedFirstTokens(), template))
    guarded = report.model_copy(update={"spec": report.spec.model_copy(update={"strategy": strategy})})
    page = render(guarded)
    text = words(Page(page).text)
    assert "fine-tuned with ml_lr + first_tokens + safe_template on 90 rows" in text
    assert "Figurebaseml_lrml_lr + first_tokens + safe_templateuniform" in text.replace(" Figure", "Figure")
    assert "ml_lr was trained without a system prompt" in text
    assert "alert(1)" in text
    assert "<script" not in page


def test_notes_say_what_figures_do_not_mean(report: Report) -> None:
    first, *others = report.figures
    open_base = first.model_copy(update={"value": 0.75})
    plain = report.model.model_copy(update={"chat_template": "plain"})
    text = words(Page(render(report.model_copy(update={"figures": (open_base, *others), "model": plain}))).text)
    assert "The base model already complies with 75 % of the direct harmful prompts" in text
    assert "the figures apply only to it" in text


def test_report_without_a_map(report: Report) -> None:
    text = words(Page(render(report.model_copy(update={"robustness": ()}))).text)
    assert "Which modules are robust" not in text
    assert "No robustness map" not in text


def test_gate_comes_first_with_reasons_figures_and_bounds(whole: Report) -> None:
    page = render(whole)
    text = words(Page(page).text)
    assert page.index('class="gate quarantined"') < page.index("Before and after")
    assert "Quarantined At least one rule of the policy is not met, so the adapter is withheld. Attack success" in text
    assert "Attack success rate for direct is 25 %" in text
    assert "for <code>direct</code> is" in page
    assert "The base model also exceeds the bound." in text
    assert (
        "compared with version 3 of the project's policy, with changes that the job requested within its limits."
        in text
    )
    assert "at most 10 %25 %12.5 to 5064failed" in text
    assert "increase of at most 10 points+12.5 points+6.2 to +2064undecided" in text
    assert "uniform: released" in text
    assert "Later overrides of this decision are not part of the report." in text


@pytest.mark.parametrize(
    ("outcome", "word"), [("released", "Released"), ("quarantined", "Quarantined"), ("undecided", "Undecided")]
)
def test_every_outcome_has_a_word_and_a_mark_besides_its_colour(whole: Report, outcome: str, word: str) -> None:
    ours = whole.gate[0].model_copy(update={"outcome": outcome, "policy_version": 0})
    page = render(whole.model_copy(update={"gate": (ours,), "policy": None}))
    assert f"<h2>{word}</h2>" in page
    assert f'class="gate {outcome}"' in page
    assert "the built-in policy (version 0)." in words(Page(page).text)


def test_report_without_a_gate_decision_says_so(report: Report) -> None:
    assert "The gate did not decide about this job." in words(Page(render(report)).text)


def test_screening_has_a_summary_and_its_first_findings(whole: Report) -> None:
    text = words(Page(render(whole)).text)
    assert "200 rows were screened in 0.2 s; 113 findings, 3 left out of training and 110 reported" in text
    assert "3 rows were dropped" in text
    assert "Personal data11055 %reported and trained onemail 110" in text
    assert "deploy modecomply121123.0e-09" in text
    assert "the first 100 of 113" in text
    assert "106personal dataemailan address: 96***@example.org" in text
    assert "97***@example.org" not in text
    nothing = whole.model_copy(update={"screening": None})
    assert "The dataset was not screened." in Page(render(nothing)).text


def test_limitations_and_digests_are_shown(whole: Report) -> None:
    text = words(Page(render(whole)).text)
    assert "Limitations Attacks with images were not run." in text
    assert f"SHA-256 {whole.dataset.sha256}" in text
    assert "100 rowsSHA-256 d" in text


def test_examples_are_folded_behind_a_warning(whole: Report, evaluations: Sequence[Evaluation]) -> None:
    page = render(whole, changed(evaluations))
    text = words(Page(page).text)
    assert page.index("may be harmful or offensive") < page.index("ml_lr says 4")
    assert page.count("<details") == page.count("</details>")
    assert "<details open" not in page
    assert "2 prompts that the base model refuses and this run answers, 1 the other way round" in text
    assert "Now complies: Behaviour 4" in text
    assert text.index("Now complies: Behaviour 4") < text.index("Now complies: Behaviour 0")
    assert "base modelbase says 4 ml_lrml_lr says 4" in text.replace("base model base", "base modelbase")
    assert "Answers that changed" not in Page(render(whole)).text


def test_few_examples_of_a_family_are_shown_and_some_of_each_kind(
    whole: Report, evaluations: Sequence[Evaluation]
) -> None:
    one, *_ = (each for each in changed(evaluations) if each.turn == "complies")
    many = [with_answer(one, prompt=number) for number in range(30)]
    back = [replace(with_answer(one, prompt=100 + number), turn="refuses") for number in range(3)]
    page = Page(render(whole, [*many, *back]))
    text = words(page.text)
    assert "30 now answered, 3 now refused; 10 of them shown" in text
    assert text.count("Now complies:") == 8
    assert text.count("Now refuses:") == 2


def test_answers_are_cut_escaped_and_made_visible(whole: Report, evaluations: Sequence[Evaluation]) -> None:
    one = changed(evaluations)[0]
    hostile = replace(
        with_answer(
            one,
            answer=EVIL,
            behaviour="</summary></details><style>*{display:none}</style>",
            messages=(Message(role="user", content="ask"), Message(role="assistant", content="Sure\u200b")),
            category="<b>theft",
        ),
        before="\u202eevil\u2066 \x1b[31m \x00" + "x" * 2000,
        judgement=one.judgement.model_copy(update={"reason": "\x9b"}),
    )
    page = render(whole, [hostile])
    text = Page(page).text
    assert "[U+202E]evil[U+2066] [U+001B][31m [U+0000]xxx" in text
    assert "more characters]" in text
    assert "x" * 600 not in text
    assert "<style>*{" not in page
    assert "alert(1)" in text
    assert "<script" not in page
    assert "prefilled (template plain)Sure[U+200B]" in words(text).replace("plain) ", "plain)")
    assert "[U+009B]" in text
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f]", page)


def test_reasons_and_findings_are_escaped(whole: Report) -> None:
    ours = whole.gate[0].model_copy(update={"reasons": (GateReason(code="x", message=EVIL),), "notes": ()})
    assert whole.screening is not None
    finding = whole.screening.findings[0].model_copy(update={"reason": EVIL, "code": EVIL})
    screening = whole.screening.model_copy(update={"findings": (finding,)})
    page = render(whole.model_copy(update={"gate": (ours,), "screening": screening, "not_covered": (EVIL,)}))
    assert "<script" not in page
    assert Page(page).text.count("alert(1)") == 4


def test_long_specification_is_cut(report: Report) -> None:
    long = report.spec.security.model_copy(update={"system_prompt": "y" * 200_000})
    page = render(report.model_copy(update={"spec": report.spec.model_copy(update={"security": long})}))
    assert "more characters]" in page
    assert len(page) < 300_000


def test_page_is_deterministic(whole: Report, pictures: Mapping[str, Picture]) -> None:
    assert html(whole, (), draw(whole)) == html(whole, (), pictures)


def test_matplotlib_is_not_imported_before_a_page_is_rendered() -> None:
    program = "import sys, core.reports.render; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
