"""Pictures of a report, as SVG: each is a file of its own, and fits into the page.

Not here: the page (core.reports.render), any figure (the stages).
"""

from core.reports.pictures import curves, heat, outcomes
from core.reports.pictures.canvas import Picture
from core.schemas.results import Report

__all__ = ["Picture", "draw"]


def draw(report: Report) -> dict[str, Picture]:
    """All pictures that the report has figures for, by name: `bars`, `pareto`, `robustness` (and `robustness_2` and so
    on, one for each usable map), `rates`, `losses`, `security`."""
    usable = [result for result in report.robustness if result.usable and result.modules]
    found = [
        outcomes.bars(report),
        outcomes.pareto(report),
        *(
            heat.robustness(result, name="robustness" if number == 1 else f"robustness_{number}")
            for number, result in enumerate(usable, 1)
        ),
        heat.rates(report),
        curves.losses(report),
        curves.security(report),
    ]
    return {picture.name: picture for picture in found if picture is not None}
