"""A Report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Not here: what is shown (core.reports.view).
"""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from core.reports import view
from core.spec.results import Report


@cache
def _template() -> Template:
    loader = PackageLoader("core.reports", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("report.html")


def html(report: Report) -> str:
    """The page. Every text that came from a job is escaped."""
    return _template().render(
        report=report,
        arms=view.arms(report),
        titles=view.titles(report),
        prompts=view.system_prompts(report),
        particulars={result.arm: view.particulars(result) for result in report.training},
        unprotected=view.nothing_to_protect(report.figures),
        table=view.table(report),
        categories=view.categories(report),
        maps=[view.robustness_map(result) for result in report.robustness if result.usable],
        unusable=[result for result in report.robustness if not result.usable],
        curves=view.curves(report),
        spec=report.spec.model_dump_json(indent=2),
    )
