"""Tables of results in a Markdown page: written between two comments that name the file of results.

Not here: the figures themselves (research.real.compare).
"""

import re
from pathlib import Path

from research.experiments.spec import Interval
from research.real.compare import Comparison
from research.real.run import Result

_BLOCK = re.compile(r"(<!-- (?P<file>\S+\.json) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = (
    "arm",
    "seeds",
    "rate",
    "attack success, %",
    "of what the base refuses, %",
    "below `uniform` at equal loss, points",
    "over-refusal, %",
    "validation loss",
    "ROUGE-L",
    "time",
)


def fill(page: str, root: Path) -> str:
    """The page with every table written anew. Files are named relative to `root`.

    Raises:
        ValueError: the page names no file.
    """
    if not _BLOCK.search(page):
        raise ValueError("the page has no block of the form <!-- results.json --> ... <!-- end -->")
    return _BLOCK.sub(lambda found: f"{found[1]}{_table(root / found['file'])}{found[3]}", page)


def _table(path: Path) -> str:
    """The arms of one experiment, the safest at the end first."""
    result = Result.model_validate_json(path.read_bytes())
    base = result.base
    cells = [
        f"{base.attack_success():.0f}",
        "0",
        "-",
        f"{base.over_refusal:.0f}",
        f"{base.loss:.3f}",
        _score(base.rouge),
    ]
    rows = [_HEAD, ("---",) * len(_HEAD), ("base model", "-", "-", *cells, "-")]
    rows += [_row(each, result) for each in sorted(result.compared, key=lambda each: each.attack_success.mean)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    about = (
        f"{result.model.name}, {result.precision}, {result.plan.rows} rows, {result.plan.steps} steps of "
        f"{result.plan.batch_size}; {result.requests} harmful requests"
        f"{' that the base model refuses' if result.plan.only_refused else ''}, "
        f"{result.plan.safe} safe look-alikes."
    )
    return "\n".join((about, "", *lines)) + "\n"


def _row(each: Comparison, result: Result) -> tuple[str, ...]:
    seeds = sum(run.arm == each.arm for run in result.runs)
    return (
        f"`{each.arm}`",
        f"{seeds}",
        f"{each.rate:g}",
        _cell(each.attack_success, 0),
        _cell(each.newly_complying, 0),
        _cell(each.reduction_at_equal_loss, 0),
        _cell(each.over_refusal, 0),
        _cell(each.loss, 3),
        _cell(each.rouge, 3),
        _cell(each.seconds, 2),
    )


def _cell(interval: Interval, digits: int) -> str:
    """A mean with its 95 % interval, if there is more than one seed."""
    mean = f"{interval.mean:.{digits}f}"
    if interval.ci95 is None:
        return mean
    low, high = interval.ci95
    return f"{mean} ({low:.{digits}f} to {high:.{digits}f})"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
