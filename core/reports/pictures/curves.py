"""Curves of all runs during training: losses, and refusal drift.

Not here: measuring them (core.training).
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes

from core.reports.pictures.canvas import (
    INK,
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
from core.reports.view import runs
from core.schemas.job import BASE_RUN
from core.schemas.results import Report

_HEIGHT = 300.0
_MAX_POINTS = 40
"""Points of a curve; longer curves are averaged over neighbouring steps."""
_MARKED = 8
_LOG_FROM = 12.0
"""Losses have a logarithmic axis if the highest exceeds the lowest by this factor."""
Line = Sequence[tuple[float, float]]


def losses(report: Report) -> Picture | None:
    """Training loss, and validation loss if it was measured during training; None without any."""
    training: dict[str, Line] = {run.run: [(each.step, each.loss) for each in run.curve] for run in report.training}
    validation: dict[str, Line] = {
        run.run: [(each.step, each.loss) for each in run.validation] for run in report.training
    }
    if not any(training.values()):
        return None
    measured = any(validation.values())
    steps = max(1, -(-max(len(line) for line in training.values()) // _MAX_POINTS))
    averaged = {run: _average(line, steps) for run, line in training.items()}
    rows = report.spec.training.batch_size
    with picture_style():
        drawn = figure(_HEIGHT)
        shown = {run: style for run, style in styles(runs(report)).items() if run != BASE_RUN}
        left, *right = drawn.subplots(1, 2 if measured else 1, squeeze=False, sharey=True)[0]
        _curves(left, averaged, shown)
        _axes(left, f"optimizer step (n = {rows} rows per step)", "loss, nats per token")
        left.set_title("Training rows")
        for axes in right:
            _curves(axes, validation, shown)
            _axes(axes, f"optimizer step (n = {report.data.validation_rows} rows per point)", "")
            axes.set_title("Validation rows")
        _scale(left, [averaged, validation] if measured else [averaged])
        legend(drawn, left)
        return save(
            drawn,
            name="losses",
            title="Loss during training",
            caption=f"Mean negative log-likelihood of the tokens in the loss, over the {rows} rows of each step"
            + (f" (each point is the mean of up to {steps} logged steps)" if steps > 1 else "")
            + (f", and over {report.data.validation_rows} validation rows." if measured else "."),
            alt="; ".join(_describe(run, line) for run, line in training.items() if line) + ".",
        )


def security(report: Report) -> Picture | None:
    """Refusal drift during training; None if it was not measured."""
    lines: dict[str, Line] = {
        run.run: [(each.step, each.refusal_drift) for each in run.security] for run in report.training
    }
    if not any(lines.values()):
        return None
    points = count([len(line) for line in lines.values() if line])
    with picture_style():
        drawn = figure(_HEIGHT)
        last = max(x for line in lines.values() for x, _ in line)
        lines = {BASE_RUN: [(0.0, 0.0), (last, 0.0)]} | lines
        shown = {run: style for run, style in styles(runs(report)).items() if lines[run]}
        axes = drawn.subplots()
        _curves(axes, lines, shown)
        _axes(axes, f"optimizer step ({points} points per run)", "refusal drift, nats per token")
        legend(drawn, axes)
        return save(
            drawn,
            name="security",
            title="Refusal drift during training",
            caption="Increase of the negative log-likelihood of the base model's first answer tokens on harmful probe "
            f"prompts, every second one in a framing ({points} points per run). 0 is the base model; higher values are "
            "further from its refusals. The probe prompts are not used for any other figure. Refusal drift shows when "
            "refusals change; it does not always rank runs as attacks do.",
            alt="; ".join(_describe(run, line) for run, line in lines.items() if line and run != BASE_RUN) + ".",
        )


def _average(line: Line, size: int) -> Line:
    """The mean of every `size` neighbouring points."""
    blocks = [line[start : start + size] for start in range(0, len(line), size)]
    return [(fmean(x for x, _ in block), fmean(y for _, y in block)) for block in blocks]


def _curves(axes: Axes, lines: Mapping[str, Line], shown: Mapping[str, Style]) -> None:
    for number, (run, style) in enumerate(shown.items()):
        line = lines[run]
        step = max(1, len(line) // _MARKED)
        axes.plot(
            [x for x, _ in line], [y for _, y in line], color=style.colour, linestyle=style.dashes, linewidth=1.8,
            marker=style.marker, markevery=slice(number % step, None, step), markersize=6, markeredgecolor=INK,
            markeredgewidth=0.6, clip_on=False, zorder=3 + len(shown) - number, label=label(run),
        )  # fmt: skip


def _axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    plain_numbers(axes, along="x", whole=True)
    plain_numbers(axes, along="y")


def _scale(axes: Axes, groups: Sequence[Mapping[str, Line]]) -> None:
    values = [y for lines in groups for line in lines.values() for _, y in line]
    if min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
        plain_numbers(axes, along="y", log=True)
        axes.set_ylabel("loss, nats per token (logarithmic)")
    else:
        room = 0.06 * (max(values) - min(values)) or 0.5
        axes.set_ylim(min(values) - room, max(values) + room)


def _describe(run: str, line: Line) -> str:
    return f"{label(run)}: {line[0][1]:.3f} at step {line[0][0]:g}, {line[-1][1]:.3f} at step {line[-1][0]:g}"
