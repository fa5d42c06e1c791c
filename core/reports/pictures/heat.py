"""Maps of modules, layers across and types down: how robust they are, and how fast they are trained.

Not here: how robustness is measured (core.robustness), what a strategy makes of it (core.training.strategies).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import NullLocator

from core.reports.pictures.canvas import (
    Picture,
    drawing,
    figure,
    plain_numbers,
    saved,
    words,
)
from core.reports.view import drift, in_order
from core.schemas.results import Report
from core.schemas.robustness import RobustnessResult
from core.schemas.training import LearningPlan

_MAP = "cividis"
"""Its lightness rises all the way, so that it reads the same in grey, and to colour-blind eyes."""
LEVELS = 32
_LIGHT_BELOW = 13
"""Below this level white has more contrast than black."""
_WRITTEN = 12
"""Most layers with the figure written in each cell."""
_ROW, _PLAN_ROW = 25.0, 15.0
_ACROSS = 600.0
"""Points that all layers together have."""
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
_UNITS = {"refusal_drift": "refusal drift, nats per token", "feature_drift": "feature drift, class distances"}
Place = tuple[int, str]


@dataclass(frozen=True)
class _Grid:
    """A figure for each module: where it stands, and how much it is."""

    cells: Mapping[Place, float]
    layers: tuple[int, ...]
    types: tuple[str, ...]

    def box(self, place: Place, inset: float, *, row: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a module's cell, less an inset in points; a row is so many points high."""
        x, y = self.layers.index(place[0]), self.types.index(place[1])
        across, down = min(0.4, inset * len(self.layers) / _ACROSS), min(0.4, inset / row)
        return x - 0.5 + across, y - 0.5 + down, x + 0.5 - across, y + 0.5 - down


def colour(level: int) -> str:
    """Colour of one of 32 levels, from the lowest. The map's darkest tenth is left out: it is lost on dark paper."""
    return to_hex(mpl.colormaps[_MAP](0.1 + 0.9 * (level + 0.5) / LEVELS))


def robustness(result: RobustnessResult, *, name: str = "robustness") -> Picture:
    """The drift of every module; chosen ones have a frame."""
    grid = _grid({(row.layer, row.type): drift(row, result) for row in result.modules})
    chosen = [(row.layer, row.type) for row in result.modules if row.module in set(result.robust)]
    low, high = min(grid.cells.values()), max(grid.cells.values())
    norm = Normalize(low, high if high > low else low + 1)
    unit = _UNITS[result.analysis.proxy]
    with drawing():
        drawn = figure(_ROW * len(grid.types) + 62)
        axes, bar = drawn.subplots(1, 2, width_ratios=(1, 0.022))
        _fill(axes, grid, norm, _ROW)
        _frame(axes, grid, chosen)
        if len(grid.layers) <= _WRITTEN:
            _write(axes, grid, norm)
        _label(axes, grid)
        axes.set_xlabel(f"decoder layer (n = {len(grid.cells)} modules, {len(chosen)} of them chosen)")
        axes.set_ylabel("module type")
        _colour_bar(bar, norm, unit)
        seeds = result.analysis.perturbation.seeds
        return saved(
            drawn,
            name=name,
            title="Robustness of modules",
            caption=f"Brighter is more fragile: {unit}, when a module's share of the change is made (n = "
            f"{result.analysis.probes} harmful probe prompts, {seeds} {'seed' if seeds == 1 else 'seeds'}). A frame "
            f"marks the {len(chosen)} of {len(grid.cells)} modules that were chosen as robust.",
            alt=_told(grid, chosen, unit),
        )


def rates(report: Report) -> Picture | None:
    """The factor on the learning rate by layer and type, for each arm in which modules differ; None without any."""
    phases = [phase for result in report.training for phase in _phases(result.plan)]
    places = _Places(report)
    shown = [(title, _grid({places(name): scale for name, scale in scales.items()})) for title, scales in phases]
    if not shown:
        return None
    norm = Normalize(0, 1)
    with drawing():
        drawn = figure(sum(_PLAN_ROW * len(grid.types) + 34 for _, grid in shown) + 34)
        heights = [len(grid.types) + 2.2 for _, grid in shown]
        spec = drawn.add_gridspec(len(shown), 2, width_ratios=(1, 0.022), height_ratios=heights)
        for number, (title, grid) in enumerate(shown):
            axes = drawn.add_subplot(spec[number, 0])
            _fill(axes, grid, norm, _PLAN_ROW)
            _label(axes, grid, size=9)
            axes.set_title(title)
            axes.set_ylabel("module type")
            if number == len(shown) - 1:
                axes.set_xlabel(f"decoder layer (n = {len(grid.cells)} modules of each arm)")
        _colour_bar(drawn.add_subplot(spec[0, 1]), norm, "factor on the rate")
        same = [words(result.run) for result in report.training if not _phases(result.plan)]
        rest = f" Every module had the same factor in {', '.join(same)}." if same else ""
        return saved(
            drawn,
            name="rates",
            title="Learning rates by module",
            caption="Factor on the standard learning rate: 1 is the standard rate, 0 is not trained." + rest,
            alt=". ".join(f"{title}: {_summed(grid)}" for title, grid in shown) + "." + rest,
        )


def _phases(plan: LearningPlan) -> list[tuple[str, Mapping[str, float]]]:
    """The plan's phases with their names, where modules differ in any of them."""
    run = words(plan.strategy)
    if plan.warmup_scales is None:
        return [(run, plan.scales)] if _differ(plan.scales) else []
    share = f"{run}, first {100 * plan.warmup_ratio:g} % of the steps"
    if _differ(plan.scales):
        return [(share, plan.warmup_scales), (f"{run}, after that", plan.scales)]
    factor = next(iter(plan.scales.values()), 1.0)
    return [(f"{share} (after that {factor:g} for all)", plan.warmup_scales)] if _differ(plan.warmup_scales) else []


def _differ(scales: Mapping[str, float]) -> bool:
    return len(set(scales.values())) > 1


class _Places:
    """Where a module stands: as the map says, or, without one, as its name does."""

    def __init__(self, report: Report) -> None:
        self.known: dict[str, Place] = {
            row.module: (row.layer, row.type) for result in report.robustness for row in result.modules
        }

    def __call__(self, module: str) -> Place:
        known = self.known.get(module)
        if known is not None:
            return known
        layer = _LAYER.search(module)
        part = module.rpartition("[")[2].rstrip("]") if "[" in module else module.rpartition(".")[2]
        return int(layer[1]) if layer else 0, part.removesuffix("_proj")


def _grid(cells: Mapping[Place, float]) -> _Grid:
    return _Grid(cells, tuple(sorted({layer for layer, _ in cells})), in_order([kind for _, kind in cells]))


def _fill(axes: Axes, grid: _Grid, norm: Normalize, row: float) -> None:
    """Cells of one colour are one path, which keeps the file small."""
    by_level: dict[int, list[tuple[float, float, float, float]]] = {}
    for place, value in grid.cells.items():
        by_level.setdefault(_level(value, norm), []).append(grid.box(place, 0.6, row=row))
    for level, boxes in sorted(by_level.items()):
        axes.add_patch(PathPatch(_path(boxes), facecolor=colour(level), edgecolor="none", clip_on=False))
    axes.set_xlim(-0.5, len(grid.layers) - 0.5)
    axes.set_ylim(len(grid.types) - 0.5, -0.5)


def _frame(axes: Axes, grid: _Grid, chosen: Sequence[Place]) -> None:
    """A dark line on a light one: one of them shows on every colour."""
    if not chosen:
        return
    path = _path([grid.box(place, 2.2, row=_ROW) for place in chosen])
    thin = len(grid.layers) > _WRITTEN
    for ink, width in (("#fefefe", 2.4 if thin else 3.4), ("#000000", 1.1 if thin else 1.5)):
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=ink, linewidth=width, clip_on=False))


def _write(axes: Axes, grid: _Grid, norm: Normalize) -> None:
    digits = 3 if max(abs(value) for value in grid.cells.values()) < 0.1 else 2
    for (layer, kind), value in grid.cells.items():
        light = _level(value, norm) < _LIGHT_BELOW
        shown = axes.text(
            grid.layers.index(layer), grid.types.index(kind), f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}"),
            ha="center", va="center", fontsize=9.5, color="#fefefe" if light else "#000000",
        )  # fmt: skip
        shown.set_in_layout(False)


def _label(axes: Axes, grid: _Grid, *, size: float = 11) -> None:
    step = max(1, -(-len(grid.layers) // 16))
    at = list(range(0, len(grid.layers), step))
    axes.set_xticks(at, labels=[str(grid.layers[place]) for place in at], fontsize=size)
    axes.set_yticks(range(len(grid.types)), labels=[words(kind) for kind in grid.types], fontsize=size)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour_bar(axes: Axes, norm: Normalize, label: str) -> None:
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    edges = np.linspace(low, high, LEVELS + 1)
    for level in range(LEVELS):
        box = (0.0, float(edges[level]), 1.0, high)  # the next is drawn over it, so that no seam shows
        axes.add_patch(PathPatch(_path([box]), facecolor=colour(level), edgecolor="none", clip_on=False))
    axes.set_xlim(0, 1)
    axes.set_ylim(low, high)
    plain_numbers(axes, along="y")
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(label)
    axes.spines[:].set_visible(False)


def _level(value: float, norm: Normalize) -> int:
    return min(LEVELS - 1, max(0, int(LEVELS * float(norm(value)))))


def _path(boxes: Sequence[tuple[float, float, float, float]]) -> Path:
    corners = [
        corner
        for left, top, right, bottom in boxes
        for corner in ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    ]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return Path(np.array(corners), codes)


def _told(grid: _Grid, chosen: Sequence[Place], unit: str) -> str:
    most = sorted(grid.cells, key=lambda place: -grid.cells[place])[:3]
    fragile = ", ".join(f"{words(kind)} of layer {layer} ({grid.cells[layer, kind]:.3f})" for layer, kind in most)
    by_type = ", ".join(
        f"{words(kind)} {sum(place[1] == kind for place in chosen)} of {sum(place[1] == kind for place in grid.cells)}"
        for kind in grid.types
    )
    return (
        f"A grid of {len(grid.layers)} layers and {len(grid.types)} module types, coloured by {unit}. Most fragile: "
        f"{fragile}. Chosen as robust by type: {by_type}."
    )


def _summed(grid: _Grid) -> str:
    values = list(grid.cells.values())
    full = sum(value >= 1 for value in values)
    least = min(values)
    return f"{full} of {len(values)} modules at the standard rate, the least factor is {least:.3g}"
