"""Pictures of a report as SVG, both as files and inside the page.

Not here: the page (core.reports.render), the figures (the stages).
"""

from core.reports.pictures import curves, heat, outcomes
from core.reports.pictures.canvas import Picture
from core.schemas.results import Report

__all__ = ["Picture", "draw"]


def draw(report: Report) -> dict[str, Picture]:
    """Draw all pictures that the report has figures for, by name: `bars`, `pareto`, `robustness` (then `robustness_2`
    and so on, one for each usable map), `rates`, `losses`, `security`."""
    usable = [result for result in report.robustness if result.usable and result.modules]
    pictures = [
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
    return {picture.name: picture for picture in pictures if picture is not None}
