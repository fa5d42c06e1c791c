"""Renders a Report as one self-contained HTML page: no scripts, no external fonts, no external images.

All text from a job is escaped, and its invisible characters are shown (core.reports.text). Not here: what the page
shows (core.reports.view, core.reports.decided), pictures (core.reports.pictures).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import TYPE_CHECKING

from jinja2 import Template

from core.reports import decided, numbers, view
from core.reports.examples import Example
from core.reports.page import environment
from core.reports.text import cut, fold_thinking
from core.schemas.results import Report

if TYPE_CHECKING:
    from core.reports.pictures import Picture

_MAX_EXAMPLES = 10
"""Examples shown for each run and family."""
_MIN_REFUSES = 2
"""How many of these are kept free for answers that the run refuses now, if there are any."""
_MAX_TEXT = 600
"""Characters shown of each text in an example."""
_MAX_SPEC = 100_000
"""Characters shown of the specification, which is long if it lists modules."""
_MAX_MODULES = 1200
"""Rows in the table of modules."""


@dataclass(frozen=True)
class _Family:
    """Examples of one run and family: those shown, and how many there are."""

    suite: str
    shown: tuple[Example, ...]
    complies: int
    refuses: int


def html(report: Report, examples: Sequence[Example], pictures: "Mapping[str, Picture]") -> str:
    """Render the page.

    Args:
        report: The report.
        examples: Changed answers, as returned by core.reports.examples.changed.
        pictures: Pictures, as returned by core.reports.pictures.draw.
    """
    proofs = view.proofs(report)
    return _template().render(
        report=report,
        runs=view.runs(report),
        titles=view.titles(report),
        prompts=view.system_prompts(report),
        training_notes={result.run: view.training_notes(result, proofs.get(result.run)) for result in report.training},
        noise=view.noise_note(report),
        unprotected=view.nothing_to_protect(report.figures),
        table=view.table(report),
        categories=view.categories(report),
        maps=[view.robustness_map(result) for result in report.robustness if result.usable],
        unusable=[result for result in report.robustness if not result.usable],
        pictures=pictures,
        verdicts=decided.verdicts(report),
        pinned=decided.pinned(report),
        tiles=decided.tiles(report),
        screened=decided.screened(report),
        max_findings=decided.MAX_FINDINGS,
        max_modules=_MAX_MODULES,
        examples={run: tuple(_families(list(group))) for run, group in groupby(examples, lambda each: each.answer.run)},
        spec=cut(report.spec.model_dump_json(indent=2), _MAX_SPEC),
    )


@cache
def _template() -> Template:
    filters = {"fold_thinking": fold_thinking, "percent": numbers.percent, "plural": numbers.plural}
    return environment(cut=partial(cut, length=_MAX_TEXT), **filters).get_template("report.html")


def _families(examples: Sequence[Example]) -> Iterator[_Family]:
    """Group examples by family, the family of the most harmful one first."""
    for suite in dict.fromkeys(each.answer.suite for each in examples):
        rows = [each for each in examples if each.answer.suite == suite]
        complies = [each for each in rows if each.turn == "complies"]
        refuses = [each for each in rows if each.turn == "refuses"]
        room = _MAX_EXAMPLES - min(len(refuses), _MIN_REFUSES)
        shown = (*complies[:room], *refuses)[:_MAX_EXAMPLES]
        yield _Family(suite, shown, len(complies), len(refuses))
