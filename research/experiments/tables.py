"""Figures with intervals as text in columns.

Not here: which figures an experiment prints.
"""

from collections.abc import Mapping, Sequence

from research.experiments.spec import Interval, Reading


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cell(interval: Interval | None, digits: int = 1) -> str:
    """A mean with its interval."""
    if interval is None:
        return "-"
    if interval.ci95 is None:
        return f"{interval.mean:.{digits}f}"
    low, high = interval.ci95
    return f"{interval.mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def reading_lines(found: Mapping[str, Mapping[str, Reading]], figures: Mapping[str, int]) -> list[str]:
    """A table of runs: each figure with its number of digits, its value at the end, and uniform's less the run's at
    equal task score."""
    rows = [["run", *(f"{name} {place}" for name in figures for place in ("at end", "less at equal task"))]]
    for run, each in found.items():
        cells = [
            cell(interval, digits)
            for name, digits in figures.items()
            for interval in (each[name].at_end, each[name].reduction_at_equal_task)
        ]
        rows.append([run, *cells])
    return aligned(rows)
