"""Reports with known values for the tests of core.reports."""

import pytest

from core.reports.pictures import Picture, draw
from core.schemas.evaluation import Evaluation
from core.schemas.results import Report
from testbed.report import complete_report, evaluation, small_report


@pytest.fixture(scope="session")
def report() -> Report:
    """Two runs, one usable and one unusable map; without gate and screening."""
    return small_report()


@pytest.fixture(scope="session")
def whole() -> Report:
    """The same with everything that a report can contain."""
    return complete_report()


@pytest.fixture(scope="session")
def pictures(whole: Report) -> dict[str, Picture]:
    """The pictures of the complete report."""
    return draw(whole)


@pytest.fixture(scope="session")
def evaluations() -> tuple[Evaluation, ...]:
    """The base model, and two runs of which one changed."""
    return (
        evaluation("base", ["refused", "refused", "complied", "partial", "refused"]),
        evaluation("ml_lr", ["complied", "refused", "refused", "complied", "complied"]),
        evaluation("uniform", ["refused", "refused", "complied", "refused", "undecided"]),
    )
