"""A Report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Every text that came from a job is escaped, and characters that act unseen are shown (core.reports.text). Not here: what
is shown (core.reports.view, core.reports.decided), pictures (core.reports.pictures).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from core.reports import decided, view
from core.reports.examples import Example
from core.reports.text import cut, visible
from core.schemas.results import Report

if TYPE_CHECKING:
    from core.reports.pictures import Picture

_EXAMPLES = 10
"""Examples that are shown of each arm and family."""
_OTHER_WAY = 2
"""Of these, as many are kept for what an arm refuses now, where there is any."""
_TEXT = 600
"""Characters of each text in an example."""
_SPEC = 100_000
"""Characters of the spec: one that names single modules can be long."""
_MODULES = 1200
"""Rows of the table of modules."""


@dataclass(frozen=True)
class _Family:
    """Examples of one arm and family: those that are shown, and how many there are."""

    suite: str
    shown: tuple[Example, ...]
    complies: int
    refuses: int


def html(report: Report, examples: Sequence[Example] = (), pictures: "Mapping[str, Picture] | None" = None) -> str:
    """The page.

    Args:
        report: What is shown.
        examples: Answers that changed, as core.reports.examples.changed finds them; the first ten of each arm and
            family are shown.
        pictures: As core.reports.pictures.draw makes them; they are drawn here where they are not given.
    """
    return _template().render(
        report=report,
        runs=view.runs(report),
        titles=view.titles(report),
        prompts=view.system_prompts(report),
        particulars={result.run: view.particulars(result) for result in report.training},
        unprotected=view.nothing_to_protect(report.figures),
        table=view.table(report),
        categories=view.categories(report),
        maps=[view.robustness_map(result) for result in report.robustness if result.usable],
        unusable=[result for result in report.robustness if not result.usable],
        pictures=_pictures(report) if pictures is None else pictures,
        verdicts=decided.verdicts(report),
        tiles=decided.tiles(report),
        screened=decided.screened(report),
        most_findings=decided.FINDINGS,
        most_modules=_MODULES,
        examples={run: tuple(_families(list(found))) for run, found in groupby(examples, lambda each: each.run)},
        spec=cut(report.spec.model_dump_json(indent=2), _SPEC),
    )


def _pictures(report: Report) -> "Mapping[str, Picture]":
    from core.reports.pictures import draw  # noqa: PLC0415 - loads matplotlib, which training need not wait for

    return draw(report)


@cache
def _template() -> Template:
    loader = PackageLoader("core.reports", ".")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = _drawn
    environment.filters["cut"] = _cut
    return environment.get_template("report.html")


def _shown(value: object) -> object:
    """What a template writes: every plain text with its unseen characters shown."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _drawn(picture: "Picture") -> Markup:
    """The picture as part of the page: core.reports.pictures has escaped what is in it."""
    return Markup(picture.inline)  # noqa: S704 - see above


def _cut(text: str) -> str:
    return cut(text, _TEXT)


def _families(found: Sequence[Example]) -> Iterator[_Family]:
    """By family, in the order in which they first stand, which is that of how bad they are."""
    for suite in dict.fromkeys(each.suite for each in found):
        rows = [each for each in found if each.suite == suite]
        complies = [each for each in rows if each.turn == "complies"]
        refuses = [each for each in rows if each.turn == "refuses"]
        room = _EXAMPLES - min(len(refuses), _OTHER_WAY)
        shown = (*complies[:room], *refuses)[:_EXAMPLES]
        yield _Family(suite, shown, len(complies), len(refuses))
