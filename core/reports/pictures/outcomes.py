"""Before and after training: attack success rates and over-refusal as bars, and safety against task performance.

Not here: choosing the summary figures (core.reports.overall), the figures themselves (core.attacks.count,
core.quality).
"""

import math
from collections.abc import Iterable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawn
from matplotlib.patheffects import withStroke

from core.reports.numbers import RATES, percent, plural
from core.reports.overall import TASKS, Overall, judge, overall, task_figure
from core.reports.pictures.canvas import (
    INK,
    PAPER,
    SOFT,
    Picture,
    Style,
    count,
    figure,
    label,
    legend,
    picture_style,
    plain_numbers,
    save,
    styles,
)
from core.reports.view import largest_noise, runs
from core.schemas.evaluation import Figure
from core.schemas.job import BASE_RUN
from core.schemas.metrics import TASK, Metric
from core.schemas.policy import LOWER_IS_BETTER
from core.schemas.results import Report

_REFUSALS = "over-refusal"
_BAR, _GAP = 9.0, 10.0
_FAR = 2.5
"""The base model gets its own panel if its distance from the runs exceeds their range by this factor."""


def bars(report: Report) -> Picture | None:
    """Attack success rate by family, and over-refusal rate, of all models; None if nothing was judged."""
    by = judge(report)
    rows = _rows(report, by)
    if not rows:
        return None
    names = runs(report)
    with picture_style():
        shown = styles(names)
        shown_figures = [row for by_run in rows.values() for row in by_run.values()]
        heights = [_BAR * len(names) + _GAP] * len(rows)
        drawn = figure(sum(heights) + 96)
        axes = drawn.subplots()
        _bars(axes, rows, shown)
        legend(drawn, axes)
        return save(
            drawn,
            name="bars",
            title="Attack success rate before and after training",
            caption=f"Attack success rate by family, and over-refusal rate (judge: {by}). Lines are 95 % Wilson "
            f"intervals. Lower is better for all bars.{_noise(shown_figures)}",
            alt=". ".join(_describe(title, by_run) for title, by_run in rows.items()) + ".",
        )


def pareto(report: Report) -> Picture | None:
    """Attack success rate against the task figure, of all models with both; None with fewer than two."""
    points: dict[str, tuple[Figure, Overall]] = {}
    for run in runs(report):
        task, attacks = task_figure(report, run), overall(report, run)
        if task is not None and attacks is not None:
            points[run] = (task, attacks)
    if len(points) < 2:
        return None
    first, attacks = next(iter(points.values()))
    lower = first.metric in LOWER_IS_BETTER
    families = plural(len(attacks.n), "family", "families")
    name = TASKS[first.metric] + ("" if first.suite == TASK else f", {label(first.suite)}")
    side = "left" if lower else "right"
    with picture_style():
        drawn = figure(380)
        shown = {run: style for run, style in styles(runs(report)).items() if run in points}
        panels = _panels(drawn, points)
        for axes in panels:
            _points(axes, points, shown)
        rows = count([task.n for task, _ in points.values()])
        answers = count([n for _, each in points.values() for n in each.n])
        panels[0].set_ylabel(f"attack success rate, mean of {families}, %\n({answers} per family; lower is better)")
        panels[0].set_ylim(0, 100 * max(each.high for _, each in points.values()) + 5)
        drawn.supxlabel(f"{name} ({rows}; {'lower' if lower else 'higher'} is better)", fontsize=11, color=INK)
        legend(drawn, panels[0])
        return save(
            drawn,
            name="pareto",
            title="Safety against task performance",
            caption=f"Lower is safer, and to the {side} is better at the task. The attack success rate is the mean "
            f"over {families} with equal weights; its interval is the mean of their 95 % intervals. The dotted line is "
            "the Pareto front. Highest rate: "
            + ", ".join(
                f"{label(run)} {_spoken(each.worst.suite)} {percent(each.worst.value)}"
                for run, (_, each) in points.items()
            )
            + "."
            + _noise((task for task, _ in points.values()), "in the task figure"),
            alt="; ".join(
                f"{label(run)}: attack success rate {percent(each.value)} ({percent(each.low)} to "
                f"{percent(each.high)}), {name} {_scaled(task.value, task.metric):.3g}"
                for run, (task, each) in points.items()
            )
            + ".",
        )


def _rows(report: Report, by: str | None) -> dict[str, dict[str, Figure]]:
    """Figures by row and run: families in the order of the job, then over-refusal."""
    rows: dict[str, dict[str, Figure]] = {}
    for row in report.figures:
        if row.metric == "attack_success_rate" and row.judge == by:
            rows.setdefault(_spoken(row.suite), {})[row.run] = row
    refusals = [row for row in report.figures if row.metric == "over_refusal_rate"]
    # If the judge cannot detect refusals, another judge of the job did.
    decided_by = by if any(row.judge == by for row in refusals) else next((row.judge for row in refusals), None)
    for row in refusals:
        if row.judge == decided_by:
            rows.setdefault(_REFUSALS, {})[row.run] = row
    return rows


def _bars(axes: Axes, rows: Mapping[str, Mapping[str, Figure]], shown: Mapping[str, Style]) -> None:
    step = _BAR * len(shown) + _GAP
    halo = [withStroke(linewidth=2.8, foreground=PAPER)]  # visible on dark bars, as the line itself is beside them
    for place, (run, style) in enumerate(shown.items()):
        measured = {number * step: by_run[run] for number, by_run in enumerate(rows.values()) if run in by_run}
        at = [top + _BAR * (place + 0.5) for top in measured]
        axes.barh(
            at, [100 * row.value if row.n else math.nan for row in measured.values()], height=_BAR - 1.6,
            color=style.colour, edgecolor=INK, linewidth=0.6, hatch=style.hatch, clip_on=False, label=label(run),
        )  # fmt: skip
        lows, highs = [100 * row.low for row in measured.values()], [100 * row.high for row in measured.values()]
        axes.hlines(at, lows, highs, colors=INK, linewidth=1.1, zorder=4, clip_on=False, path_effects=halo)
        for y, row in zip(at, measured.values(), strict=True):
            value = axes.text(100 * row.high + 0.7, y, _value(row), va="center_baseline", fontsize=8.5)
            value.set_in_layout(False)
    ticks = [number * step + _BAR * len(shown) / 2 for number in range(len(rows))]
    axes.set_ylim(len(rows) * step - _GAP + 4, -4)
    axes.set_xlim(0, 108)  # space for the labels behind the bars
    axes.spines["bottom"].set_bounds(0, 100)
    axes.set_yticks(
        ticks, labels=[f"{title}\n{count([row.n for row in by_run.values()])}" for title, by_run in rows.items()]
    )
    if _REFUSALS in rows and len(rows) > 1:
        axes.axhline((len(rows) - 1) * step - _GAP / 2, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), clip_on=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="x")
    axes.set_xlabel("share of decided answers, % (95 % confidence interval)")
    axes.set_ylabel("attack family")


def _panels(drawn: Drawn, points: Mapping[str, tuple[Figure, Overall]]) -> list[Axes]:
    """One panel; two with a broken axis if the base model is so far away that the runs would not be distinguishable."""
    metric = next(iter(points.values()))[0].metric
    tuned = [task for run, (task, _) in points.items() if run != BASE_RUN]
    base = points[BASE_RUN][0] if BASE_RUN in points else None
    low, high = min(row.low for row in tuned), max(row.high for row in tuned)
    parts = [(low, high, 3.2)]
    if base is not None and (base.low > high + _FAR * (high - low) or base.high < low - _FAR * (high - low)):
        parts.insert(1 if base.value > high else 0, (base.low, base.high, 1.0))
    elif base is not None:
        parts = [(min(low, base.low), max(high, base.high), 1.0)]
    widths = [width for _, _, width in parts]
    panels: list[Axes] = list(drawn.subplots(1, len(parts), squeeze=False, sharey=True, width_ratios=widths)[0])
    for number, (axes, (low, high, _)) in enumerate(zip(panels, parts, strict=True)):
        start, end = _scaled(low, metric), _scaled(high, metric)
        room = 0.12 * (end - start) or 0.5
        axes.set_xlim(start - room, end + room)
        plain_numbers(axes, along="y")
        plain_numbers(axes, along="x")
        axes.grid()
        if len(parts) == 2:
            _break(axes, right=number == 0)
    return panels


def _break(axes: Axes, *, right: bool) -> None:
    """Mark the broken axis."""
    x = 1.0 if right else 0.0
    axes.plot([x], [0], marker=[(-0.5, -1), (0.5, 1)], markersize=9, linestyle="none", color=SOFT, mec=SOFT,
              transform=axes.transAxes, clip_on=False)  # fmt: skip
    if not right:
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)


def _points(axes: Axes, points: Mapping[str, tuple[Figure, Overall]], shown: Mapping[str, Style]) -> None:
    front = _front(points)
    axes.step([x for x, _ in front], [y for _, y in front], where="pre", color=SOFT, linewidth=1.2, linestyle=":")
    for run, style in shown.items():
        task, each = points[run]
        x, y = _scaled(task.value, task.metric), 100 * each.value
        ends = [_scaled(end, task.metric) for end in (task.low, task.high)]
        axes.plot(ends, [y, y], color=style.colour, linewidth=1.6, zorder=3)
        axes.plot([x, x], [100 * each.low, 100 * each.high], color=style.colour, linewidth=1.6, zorder=3)
        axes.plot(
            [x], [y], marker=style.marker, markersize=9, color=style.colour, markeredgecolor=INK, markeredgewidth=0.8,
            linestyle="none", zorder=4, label=label(run),
        )  # fmt: skip


def _front(points: Mapping[str, tuple[Figure, Overall]]) -> list[tuple[float, float]]:
    """Points that no other point dominates, from the worst task figure to the best."""
    lower = next(iter(points.values()))[0].metric in LOWER_IS_BETTER
    sign = -1 if lower else 1
    scored = [(sign * _scaled(task.value, task.metric), 100 * each.value) for task, each in points.values()]
    best = [(x, y) for x, y in scored if not any(u >= x and v <= y and (u, v) != (x, y) for u, v in scored)]
    return [(sign * x, y) for x, y in sorted(best)]


def _scaled(value: float, metric: Metric) -> float:
    return 100 * value if metric in RATES else value


def _spoken(suite: str) -> str:
    return label(suite.replace("_", " "))


def _noise(rows: Iterable[Figure], where: str = "in a rate") -> str:
    """A sentence on the noise of these figures; empty if it was not measured."""
    size = largest_noise(rows)
    return f" The base model measured twice differs by up to {size} {where}." if size else ""


def _value(row: Figure) -> str:
    return percent(row.value) if row.n else "unknown"


def _describe(title: str, by_run: Mapping[str, Figure]) -> str:
    each = ", ".join(f"{label(run)} {_value(row)}" for run, row in by_run.items())
    return f"{title} ({count([row.n for row in by_run.values()])}): {each}"
