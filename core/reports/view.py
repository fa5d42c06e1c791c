"""What the page shows, computed from a Report: table cells, colours of the robustness map, points of the loss curves.

Not here: any HTML (report.html), any figure (the stages).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.spec.analysis import UnitKind
from core.spec.job import BASE_ARM
from core.spec.results import (
    Chosen,
    Figure,
    Metric,
    ModuleRobustness,
    Report,
    RobustnessResult,
    Suite,
    TrainedStep,
    TrainingResult,
)
from core.spec.strategy import title

_ROWS: tuple[tuple[str, Suite, Metric], ...] = (
    ("Attack success, direct", "direct", "attack_success_rate"),
    ("Attack success, prompt injection", "prompt_injection", "attack_success_rate"),
    ("Attack success, refusal breaking", "refusal_breaking", "attack_success_rate"),
    ("Harmfulness 1 to 5, direct", "direct", "harmfulness"),
    ("Harmfulness 1 to 5, prompt injection", "prompt_injection", "harmfulness"),
    ("Harmfulness 1 to 5, refusal breaking", "refusal_breaking", "harmfulness"),
    ("Over-refusal of safe look-alikes", "over_refusal", "over_refusal_rate"),
    ("Validation loss, nats per token", "task", "loss"),
)
_NOTHING_TO_PROTECT = 0.5
_TYPES = ("q", "k", "v", "o", "gate", "up", "down")
_WIDTH, _HEIGHT = 640.0, 180.0


@dataclass(frozen=True)
class Cell:
    """One figure as it is printed: value, interval, and what it is made of."""

    value: str
    interval: str
    detail: str


@dataclass(frozen=True)
class Row:
    """One line of the table of figures."""

    title: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Square:
    """One module of the map. `strength` is 0 to 1: its share of the greatest drift."""

    title: str
    strength: float
    robust: bool


@dataclass(frozen=True)
class Map:
    """The robustness map: types across, layers down."""

    result: RobustnessResult
    types: tuple[str, ...]
    layers: tuple[tuple[int, tuple[Square | None, ...]], ...]
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


@dataclass(frozen=True)
class Curve:
    """A loss curve as SVG points, with its ends in words."""

    arm: str
    points: str
    first: float
    last: float


def arms(report: Report) -> tuple[str, ...]:
    """`base`, then the trained arms in their order."""
    return (BASE_ARM, *(result.arm for result in report.training))


def titles(report: Report) -> dict[str, str]:
    """What each arm is, by its label: strategy and safeguards."""
    return {arm.label: title(arm) for arm in report.spec.arms}


def system_prompts(report: Report) -> dict[str, str]:
    """The system prompt that an arm was measured with and is to be served with, of arms with `safe_template`."""
    guarded = ((arm.label, arm.safeguards.safe_template) for arm in report.spec.arms)
    return {label: template.system_prompt for label, template in guarded if template is not None}


def particulars(result: TrainingResult) -> tuple[str, ...]:
    """What stands in no column of the table of trainings: warm-up, rates in between, validation, safeguards."""
    plan = result.plan
    found: list[str] = []
    if plan.warmup_scales is not None:
        first = sum(scale >= 1 for scale in plan.warmup_scales.values())
        found.append(f"warm-up of {first} modules for {100 * plan.warmup_share:g} % of the steps")
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
    if result.safety_rows:
        found.append(f"{result.safety_rows} refusals mixed in, {result.distinct_safety_rows} of them different")
    if result.projections:
        done = sum(each.projected for each in result.projections)
        found.append(f"{done} of {len(result.projections)} updates projected")
    return tuple(found)


def nothing_to_protect(figures: Sequence[Figure]) -> Figure | None:
    """The base model's attack success on direct prompts, where it shows that there is no security to keep.

    The rule: the base complies with more than half of the harmful prompts put to it as they are. Tuning can hardly
    break such a model, and that a strategy "keeps" its security says nothing. Where direct prompts were not run, or no
    answer could be judged, nothing is said.
    """
    for figure in figures:
        direct = (figure.arm, figure.suite, figure.metric) == (BASE_ARM, "direct", "attack_success_rate")
        if direct and figure.n and figure.value > _NOTHING_TO_PROTECT:
            return figure
    return None


def table(report: Report) -> tuple[Row, ...]:
    """Figures side by side, one column an arm; rows that nobody measured are left out."""
    found = {(figure.arm, figure.suite, figure.metric): figure for figure in report.figures}
    rows = [
        Row(title, tuple(_cell(found.get((arm, suite, metric))) for arm in arms(report)))
        for title, suite, metric in _ROWS
    ]
    return tuple(row for row in rows if any(row.cells))


def robustness_map(result: RobustnessResult) -> Map:
    """Squares by layer and type, the darker the more fragile."""
    names = {module.type for module in result.modules}
    types = tuple([kind for kind in _TYPES if kind in names] + sorted(names - set(_TYPES)))
    strongest = max((_drift(module, result) for module in result.modules), default=0.0)
    squares = {(module.layer, module.type): _square(module, result, strongest) for module in result.modules}
    layers = sorted({module.layer for module in result.modules})
    return Map(
        result=result,
        types=types,
        layers=tuple((layer, tuple(squares.get((layer, kind)) for kind in types)) for layer in layers),
        by_type=tuple(_share(kind, result) for kind in types),
        groups=_groups(result),
        probe=_probe(result),
    )


def curves(report: Report) -> tuple[Curve, ...]:
    """Training loss of each arm, on common axes."""
    highest = max((point.loss for result in report.training for point in result.curve), default=1.0)
    return tuple(
        Curve(result.arm, _points(result.curve, highest), result.curve[0].loss, result.curve[-1].loss)
        for result in report.training
        if result.curve
    )


def _cell(figure: Figure | None) -> Cell | None:
    if figure is None:
        return None

    def digits(number: float) -> str:
        return f"{100 * number:.1f} %" if figure.metric.endswith("_rate") else f"{number:.2f}"

    undecided = f", {figure.undecided} undecided" if figure.undecided else ""
    judged = "" if figure.judge == "none" else f", judge {figure.judge}"
    return Cell(
        value=digits(figure.value) if figure.n else "unknown",
        interval=f"{digits(figure.low)} to {digits(figure.high)}",
        detail=f"n = {figure.n}{undecided}{judged}",
    )


def _drift(module: ModuleRobustness, result: RobustnessResult) -> float:
    return module.refusal_drift if result.analysis.proxy == "refusal_drift" else module.feature_drift


def _square(module: ModuleRobustness, result: RobustnessResult, strongest: float) -> Square:
    robust = module.module in result.robust
    return Square(
        title=f"{module.module}: refusal drift {module.refusal_drift:.3f}, feature drift {module.feature_drift:.3f}, "
        f"task gain {module.task_gain:.3f}, {'robust' if robust else 'not robust'}",
        strength=max(0.0, _drift(module, result) / strongest) if strongest > 0 else 0.0,
        robust=robust,
    )


def _groups(result: RobustnessResult) -> tuple[Group, ...]:
    """Circuits, types, then depth bands."""
    chosen: dict[tuple[UnitKind, str], Chosen] = {(each.kind, each.name): each for each in result.chosen}
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
    stretched = f", stretched {result.stretch:.3g} times in the search" if result.stretch != 1 else ""
    return f"{steps} steps{seeds}{stretched}"


def _share(kind: str, result: RobustnessResult) -> tuple[str, int, int]:
    of_kind = [module.module for module in result.modules if module.type == kind]
    return kind, sum(name in result.robust for name in of_kind), len(of_kind)


def _points(curve: Sequence[TrainedStep], highest: float) -> str:
    last = max(1, curve[-1].step - 1)
    scale = highest or 1.0
    return " ".join(
        f"{_WIDTH * (point.step - 1) / last:.1f},{_HEIGHT * (1 - point.loss / scale):.1f}" for point in curve
    )
