"""Heat maps of modules, with layers across and module types down: robustness, and learning rates.

Not here: measuring robustness (core.robustness), computing learning rates (core.training.strategies).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from core.reports.numbers import plural
from core.reports.pictures.canvas import Picture, figure, label, picture_style, plain_numbers, save
from core.reports.view import drift, in_order
from core.schemas.results import Report
from core.schemas.robustness import RobustnessResult
from core.schemas.training import LearningPlan

LEVELS = 32
_COLOURS = ListedColormap(mpl.colormaps["cividis"](0.1 + 0.9 * (np.arange(LEVELS) + 0.5) / LEVELS))
"""Cividis: its lightness always increases, so it is readable in grey and with colour blindness. The darkest tenth is
left out, because it is invisible on a dark page."""
_WHITE_BELOW = 13
"""Below this level, white text has more contrast than black."""
_MAX_WRITTEN = 12
"""Largest number of layers with a value written in each cell."""
_ROW, _PLAN_ROW = 25.0, 15.0
_WIDTH = 600.0
"""Width of all layers together, in points."""
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
_UNITS = {"refusal_drift": "refusal drift, nats per token", "feature_drift": "feature drift, class distances"}
_Place = tuple[int, str]


@dataclass(frozen=True)
class _Grid:
    """One value for each module, by layer and type."""

    cells: Mapping[_Place, float]
    layers: tuple[int, ...]
    types: tuple[str, ...]

    def path(self, places: Iterable[_Place], inset: float, *, row: float) -> Path:
        """The outline of some cells, each smaller by an inset. Inset and height of a row are in points."""
        across, down = 0.5 - min(0.4, inset * len(self.layers) / _WIDTH), 0.5 - min(0.4, inset / row)
        corners = np.array([(-across, -down), (across, -down), (across, down), (-across, down), (-across, -down)])
        centres = [(self.layers.index(layer), self.types.index(kind)) for layer, kind in places]
        return Path.make_compound_path(*(Path(corners + centre, closed=True) for centre in centres))


def colour(level: int) -> str:
    """Colour of one of 32 levels, from the lowest."""
    return to_hex(_COLOURS(level))


def robustness(result: RobustnessResult, *, name: str = "robustness") -> Picture:
    """The drift of every module; robust modules have a frame."""
    grid = _grid({(row.layer, row.type): drift(row, result) for row in result.modules})
    robust = [(row.layer, row.type) for row in result.modules if row.module in set(result.robust)]
    low, high = min(grid.cells.values()), max(grid.cells.values())
    norm = Normalize(low, high if high > low else low + 1)
    unit = _UNITS[result.analysis.proxy]
    with picture_style():
        drawn = figure(_ROW * len(grid.types) + 62)
        axes, bar = drawn.subplots(1, 2, width_ratios=(1, 0.022))
        _fill(axes, grid, norm, _ROW)
        _frame(axes, grid, robust)
        if len(grid.layers) <= _MAX_WRITTEN:
            _write(axes, grid, norm)
        _label_axes(axes, grid)
        axes.set_xlabel(f"decoder layer (n = {len(grid.cells)} modules, {len(robust)} of them robust)")
        _colour_bar(drawn, bar, norm, unit)
        return save(
            drawn,
            name=name,
            title="Robustness map",
            caption=f"Brighter modules are more fragile. The value is the {unit}, when only this module is perturbed "
            f"(n = {result.analysis.probes} probe prompts, {plural(result.analysis.perturbation.seeds, 'seed')}). "
            f"Frames mark the {len(robust)} of {len(grid.cells)} modules that are robust.",
            alt=_describe_robustness(grid, robust, unit),
        )


def rates(report: Report) -> Picture | None:
    """The factor on the learning rate by layer and type, for each run whose modules differ; None without any."""
    known = {row.module: (row.layer, row.type) for result in report.robustness for row in result.modules}
    plans = [
        (title, _grid({known.get(module) or _place(module): scale for module, scale in scales.items()}))
        for result in report.training
        for title, scales in _phases(result.plan)
    ]
    if not plans:
        return None
    norm = Normalize(0, 1)
    with picture_style():
        drawn = figure(sum(_PLAN_ROW * len(grid.types) + 34 for _, grid in plans) + 34)
        heights = [len(grid.types) + 2.2 for _, grid in plans]
        spec = drawn.add_gridspec(len(plans), 2, width_ratios=(1, 0.022), height_ratios=heights)
        for number, (title, grid) in enumerate(plans):
            axes = drawn.add_subplot(spec[number, 0])
            _fill(axes, grid, norm, _PLAN_ROW)
            _label_axes(axes, grid, size=9)
            axes.set_title(title)
            if number == len(plans) - 1:
                axes.set_xlabel(f"decoder layer (n = {len(grid.cells)} modules per run)")
        _colour_bar(drawn, drawn.add_subplot(spec[0, 1]), norm, "factor on the rate")
        same = [label(result.run) for result in report.training if not _phases(result.plan)]
        note = f" All modules have the same factor in {', '.join(same)}." if same else ""
        return save(
            drawn,
            name="rates",
            title="Learning rates by module",
            caption="Factor on the standard learning rate: 1 is the standard rate, 0 is frozen." + note,
            alt=". ".join(f"{title}: {_describe_rates(grid)}" for title, grid in plans) + "." + note,
        )


def _phases(plan: LearningPlan) -> list[tuple[str, Mapping[str, float]]]:
    """Titles and factors of a plan's phases; empty if all modules have the same factor in all phases."""
    run = label(plan.strategy)
    if plan.warmup_scales is None:
        return [(run, plan.scales)] if _differ(plan.scales) else []
    warmup = f"{run}, first {100 * plan.warmup_ratio:g} % of the steps"
    if _differ(plan.scales):
        return [(warmup, plan.warmup_scales), (f"{run}, remaining steps", plan.scales)]
    factor = next(iter(plan.scales.values()), 1.0)
    return [(f"{warmup} (then {factor:g} for all)", plan.warmup_scales)] if _differ(plan.warmup_scales) else []


def _differ(scales: Mapping[str, float]) -> bool:
    return len(set(scales.values())) > 1


def _place(module: str) -> _Place:
    """Layer and type of a module that is in no map, from its name."""
    layer = _LAYER.search(module)
    kind = module.rpartition("[")[2].rstrip("]") if "[" in module else module.rpartition(".")[2]
    return int(layer[1]) if layer else 0, kind.removesuffix("_proj")


def _grid(cells: Mapping[_Place, float]) -> _Grid:
    return _Grid(cells, tuple(sorted({layer for layer, _ in cells})), in_order(kind for _, kind in cells))


def _fill(axes: Axes, grid: _Grid, norm: Normalize, row: float) -> None:
    """Draw the cells. Those of one colour are one path, which keeps the file small."""
    by_level: dict[int, list[_Place]] = {}
    for place, value in grid.cells.items():
        by_level.setdefault(_level(value, norm), []).append(place)
    for level, places in sorted(by_level.items()):
        path = grid.path(places, 0.6, row=row)
        axes.add_patch(PathPatch(path, facecolor=colour(level), edgecolor="none", clip_on=False))
    axes.set_xlim(-0.5, len(grid.layers) - 0.5)
    axes.set_ylim(len(grid.types) - 0.5, -0.5)


def _frame(axes: Axes, grid: _Grid, places: Sequence[_Place]) -> None:
    """Frame some cells with a dark line on a light one, so that one of them is visible on every colour."""
    if not places:
        return
    path = grid.path(places, 2.2, row=_ROW)
    thin = len(grid.layers) > _MAX_WRITTEN
    for ink, width in (("#fefefe", 2.4 if thin else 3.4), ("#000000", 1.1 if thin else 1.5)):
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=ink, linewidth=width, clip_on=False))


def _write(axes: Axes, grid: _Grid, norm: Normalize) -> None:
    digits = 3 if max(abs(value) for value in grid.cells.values()) < 0.1 else 2
    for (layer, kind), value in grid.cells.items():
        text = axes.text(
            grid.layers.index(layer),
            grid.types.index(kind),
            f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}"),
            ha="center",
            va="center",
            fontsize=9.5,
            color="#fefefe" if _level(value, norm) < _WHITE_BELOW else "#000000",
        )
        text.set_in_layout(False)


def _label_axes(axes: Axes, grid: _Grid, *, size: float = 11) -> None:
    at = range(0, len(grid.layers), max(1, -(-len(grid.layers) // 16)))
    axes.set_xticks(at, labels=[str(grid.layers[place]) for place in at], fontsize=size)
    axes.set_yticks(range(len(grid.types)), labels=[label(kind) for kind in grid.types], fontsize=size)
    axes.set_ylabel("module type")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _colour_bar(drawn: Figure, axes: Axes, norm: Normalize, unit: str) -> None:
    bar = drawn.colorbar(ScalarMappable(norm, _COLOURS), cax=axes)
    for colours in axes.collections:
        colours.set_edgecolor("face")  # otherwise thin lines are visible between the colours
    bar.outline.set_visible(False)
    plain_numbers(axes, along="y")
    bar.set_label(unit)


def _level(value: float, norm: Normalize) -> int:
    return min(LEVELS - 1, max(0, int(LEVELS * float(norm(value)))))


def _describe_robustness(grid: _Grid, robust: Sequence[_Place], unit: str) -> str:
    most = sorted(grid.cells, key=lambda place: -grid.cells[place])[:3]
    fragile = ", ".join(f"{label(kind)} of layer {layer} ({grid.cells[layer, kind]:.3f})" for layer, kind in most)
    by_type = ", ".join(
        f"{label(kind)} {sum(place[1] == kind for place in robust)} of {sum(place[1] == kind for place in grid.cells)}"
        for kind in grid.types
    )
    return (
        f"A grid of {len(grid.layers)} layers and {len(grid.types)} module types, coloured by {unit}. Most fragile: "
        f"{fragile}. Robust by type: {by_type}."
    )


def _describe_rates(grid: _Grid) -> str:
    values = list(grid.cells.values())
    full = sum(value >= 1 for value in values)
    return f"{full} of {len(values)} modules at the standard rate, the lowest factor is {min(values):.3g}"
