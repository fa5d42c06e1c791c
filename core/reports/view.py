"""What the page shows, computed from a Report: table cells, what arms are called, what the robustness map holds.

Not here: any HTML (report.html), pictures (core.reports.pictures), gate and screening (core.reports.decided), any
figure (the stages).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.schemas.analysis import UnitKind
from core.schemas.job import BASE_RUN
from core.schemas.metrics import OVER_REFUSAL, TASK, Metric
from core.schemas.results import (
    CategoryRate,
    RobustCount,
    Figure,
    ModuleRobustness,
    Report,
    RobustnessResult,
    TrainingResult,
)
from core.schemas.strategy import title

_METRICS: dict[Metric, str] = {
    "attack_success_rate": "Attack success",
    "harmfulness": "Harmfulness 1 to 5",
    "strongreject": "StrongREJECT score 0 to 1",
    "over_refusal_rate": "Over-refusal of safe look-alikes",
    "loss": "Validation loss, nats per token",
    "perplexity": "Validation perplexity",
    "exact_match": "Exact match",
    "rouge_l": "ROUGE-L",
    "accuracy": "Multiple choice, right answers",
    "score": "Score",
}
"""How metrics are called, in the order in which they are shown."""
PER_CENT: frozenset[Metric] = frozenset({"attack_success_rate", "over_refusal_rate", "exact_match", "accuracy"})
"""Figures that are printed in percent."""
_FINE: frozenset[Metric] = frozenset({"harmfulness", "strongreject"})
_NOTHING_TO_PROTECT = 0.5
_TYPES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Cell:
    """One figure as it is printed: value, interval, what it is made of, and how far it is from the base model's."""

    value: str
    interval: str
    detail: str
    change: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table of figures. `fine` are scores that stand beside the rates, for who wants to look closer."""

    title: str
    cells: tuple[Cell | None, ...]
    fine: bool = False


@dataclass(frozen=True)
class Map:
    """What stands beside the picture of a robustness map."""

    result: RobustnessResult
    chosen: frozenset[str]
    by_type: tuple[tuple[str, int, int], ...]
    groups: tuple["Group", ...]
    probe: str


@dataclass(frozen=True)
class Group:
    """A type, or a band of layers: what it does when it is moved as one, and how much of it is robust."""

    name: str
    drift: str
    gain: str
    chosen: str


def runs(report: Report) -> tuple[str, ...]:
    """`base`, then the trained arms in their order."""
    return (BASE_RUN, *(result.run for result in report.training))


def titles(report: Report) -> dict[str, str]:
    """What each arm is, by its label: strategy and safeguards."""
    return {run.label: title(run) for run in report.spec.runs}


def system_prompts(report: Report) -> dict[str, str]:
    """The system prompt that an arm was measured with and is to be served with, where its safeguards require one."""
    prompts = ((run.label, run.safeguards.serving_system_prompt) for run in report.spec.runs)
    return {label: prompt for label, prompt in prompts if prompt is not None}


def particulars(result: TrainingResult) -> tuple[str, ...]:
    """What stands in no column of the table of trainings: warm-up, rates in between, validation, safeguards."""
    plan = result.plan
    found: list[str] = []
    if plan.warmup_scales is not None:
        first = sum(scale >= 1 for scale in plan.warmup_scales.values())
        found.append(f"warm-up of {first} modules for {100 * plan.warmup_ratio:g} % of the steps")
    if between := [scale for scale in plan.scales.values() if 0 < scale < 1]:
        low, high = min(between), max(between)
        rates = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        found.append(f"{len(between)} modules at {rates} of it")
    if frozen := sum(scale == 0 for scale in plan.scales.values()):
        found.append(f"{frozen} modules frozen")
    if result.best_step is not None:
        least = min(point.loss for point in result.validation)
        early = "; stopped early, and this step's weights are kept" if result.stopped_early else ""
        found.append(f"least validation loss {least:.3f} after step {result.best_step}{early}")
    found += [effect.summary for effect in result.safeguards]
    return tuple(found)


def nothing_to_protect(figures: Sequence[Figure]) -> Figure | None:
    """The base model's attack success on direct prompts, where it shows that there is no security to keep.

    The rule: the base complies with more than half of the harmful prompts put to it as they are. Tuning can hardly
    break such a model, and that a strategy "keeps" its security says nothing. Where direct prompts were not run, or no
    answer could be judged, nothing is said.
    """
    for figure in figures:
        direct = (figure.run, figure.suite, figure.metric) == (BASE_RUN, "direct", "attack_success_rate")
        if direct and figure.n and figure.value > _NOTHING_TO_PROTECT:
            return figure
    return None


def table(report: Report) -> tuple[Row, ...]:
    """Figures side by side, one column an arm; one row for each suite, metric and judge that was measured."""
    found = {(figure.metric, figure.suite, figure.judge, figure.run): figure for figure in report.figures}
    order = list(_METRICS)
    rows = sorted(dict.fromkeys(key[:3] for key in found), key=lambda row: order.index(row[0]))
    return tuple(
        Row(row_title(*row), tuple(_cell(found.get((*row, run))) for run in runs(report)), fine=row[0] in _FINE)
        for row in rows
    )


def categories(report: Report) -> tuple[Row, ...]:
    """Attack success by category of behaviours, over all families; one row for each category and judge."""
    found = {(rate.category, rate.judge, rate.run): rate for rate in report.categories}
    return tuple(
        Row(f"{category}, judge {judge}", tuple(_share_cell(found.get((category, judge, run))) for run in runs(report)))
        for category, judge in dict.fromkeys(key[:2] for key in found)
    )


def in_order(types: Iterable[str]) -> tuple[str, ...]:
    """Module types in the order of a block, and others by name behind them."""
    names = set(types)
    return tuple([kind for kind in _TYPES if kind in names] + sorted(names - set(_TYPES)))


def drift(module: ModuleRobustness, result: RobustnessResult) -> float:
    """How fragile a module is by the proxy that its analysis goes by."""
    return module.refusal_drift if result.analysis.proxy == "refusal_drift" else module.feature_drift


def robustness_map(result: RobustnessResult) -> Map:
    """What a map says of types, groups and its probe."""
    return Map(
        result=result,
        chosen=frozenset(result.robust),
        by_type=tuple(_share(kind, result) for kind in in_order(module.type for module in result.modules)),
        groups=_groups(result),
        probe=_probe(result),
    )


def row_title(metric: Metric, suite: str, judge: str) -> str:
    """What a figure is called."""
    parts = [_METRICS[metric]]
    if suite not in (OVER_REFUSAL, TASK):
        parts.append(suite.replace("_", " "))
    if judge != "none":
        parts.append(f"judge {judge}")
    return ", ".join(parts)


def digits(metric: Metric, number: float) -> str:
    """A figure as it is printed."""
    return f"{100 * number:.1f} %" if metric in PER_CENT else f"{number:.2f}"


def _cell(figure: Figure | None) -> Cell | None:
    if figure is None:
        return None
    undecided = f", {figure.undecided} undecided" if figure.undecided else ""
    return Cell(
        value=digits(figure.metric, figure.value) if figure.n else "unknown",
        interval=f"{digits(figure.metric, figure.low)} to {digits(figure.metric, figure.high)}",
        detail=f"n = {figure.n}{undecided}",
        change=_change(figure),
    )


def _change(figure: Figure) -> str:
    change = figure.change
    if change is None:
        return ""
    scale, unit = (100.0, " points") if figure.metric in PER_CENT else (1.0, "")
    value, low, high = (f"{scale * number:+.{1 if unit else 2}f}" for number in (change.value, change.low, change.high))
    return f"{value}{unit} ({low} to {high}) on the same {change.n}"


def _share_cell(rate: CategoryRate | None) -> Cell | None:
    if rate is None:
        return None
    undecided = f", {rate.undecided} undecided" if rate.undecided else ""
    return Cell(
        value=f"{100 * rate.value:.1f} %" if rate.n else "unknown",
        interval=f"{100 * rate.low:.1f} % to {100 * rate.high:.1f} %",
        detail=f"n = {rate.n}{undecided}",
    )


def _groups(result: RobustnessResult) -> tuple[Group, ...]:
    """Circuits, types, then depth bands."""
    chosen: dict[tuple[UnitKind, str], RobustCount] = {(each.kind, each.name): each for each in result.chosen}
    found: list[Group] = []
    for row in result.groups:
        each = chosen.get((row.kind, row.name))
        if each is None:  # finer than what is shown
            continue
        refusal = result.analysis.proxy == "refusal_drift"
        drift = row.refusal_drift if refusal else row.feature_drift
        spread = row.refusal_drift_spread if refusal else row.feature_drift_spread
        seeds = f" \N{PLUS-MINUS SIGN} {spread:.3f}" if result.analysis.perturbation.seeds > 1 else ""
        shares = f"{each.robust} of {each.modules}"
        found.append(Group(row.name, f"{drift:.3f}{seeds}", f"{row.task_gain:.3f}", shares))
    return tuple(found)


def _probe(result: RobustnessResult) -> str:
    """How long the probes were trained and how far their updates were stretched, in words; nothing under noise."""
    if not result.probe_steps:
        return ""
    steps = ", ".join(str(each) for each in result.probe_steps)
    seeds = f" with {len(result.probe_steps)} seeds" if len(result.probe_steps) > 1 else ""
    stretched = f", stretched {result.update_scale:.3g} times in the search" if result.update_scale != 1 else ""
    return f"{steps} steps{seeds}{stretched}"


def _share(kind: str, result: RobustnessResult) -> tuple[str, int, int]:
    of_kind = [module.module for module in result.modules if module.type == kind]
    return kind, sum(name in result.robust for name in of_kind), len(of_kind)
