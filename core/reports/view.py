"""What the page shows, computed from a Report: table cells, titles of runs, robustness maps.

Not here: HTML (report.html), pictures (core.reports.pictures), gate and screening (core.reports.decided), the figures
themselves (the stages).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.reports import numbers
from core.schemas.analysis import UnitKind
from core.schemas.evaluation import CategoryRate, Change, Figure, WeightsProof
from core.schemas.job import BASE_RUN
from core.schemas.metrics import OVER_REFUSAL, TASK, Metric
from core.schemas.results import Report, TrainingResult
from core.schemas.robustness import (
    Compared,
    MapStability,
    MeasuredAt,
    ModuleRobustness,
    RobustCount,
    RobustnessResult,
)
from core.schemas.strategy import title

_METRICS: dict[Metric, str] = {
    "attack_success_rate": "Attack success rate",
    "harmfulness": "Harmfulness, 1 to 5",
    "strongreject": "StrongREJECT score, 0 to 1",
    "over_refusal_rate": "Over-refusal rate",
    "loss": "Validation loss, nats per token",
    "perplexity": "Validation perplexity",
    "exact_match": "Exact match",
    "rouge_l": "ROUGE-L",
    "accuracy": "Multiple-choice accuracy",
    "score": "Score",
}
"""Titles of metrics, in the order in which they are shown."""
_SCORES: frozenset[Metric] = frozenset({"harmfulness", "strongreject"})
_JUDGED = _SCORES | {"attack_success_rate", "over_refusal_rate"}
"""Metrics of verdicts; all others are task figures."""
_UNPROTECTED = 0.5
_TYPES = ("q", "k", "v", "o", "gate", "up", "down")

_COMPARED: dict[Compared, str] = {
    "seeds": "seeds",
    "halves": "halves of the prompts and rows",
    "break_and_end": "the break and the end",
}
_MEASURED_AT: dict[MeasuredAt, str] = {"break": "where refusals break", "end": "at the end of the probe"}


@dataclass(frozen=True)
class Cell:
    """One figure as text: value, interval, n, change against the base model, and the noise of that change."""

    value: str
    interval: str
    detail: str
    change: str = ""
    noise: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table of figures. `score` marks scores by judges, which are shown apart from rates."""

    title: str
    cells: tuple[Cell | None, ...]
    score: bool = False


@dataclass(frozen=True)
class Group:
    """A circuit, type or band of layers: its drift when it is perturbed as a whole, and how much of it is robust."""

    name: str
    drift: str
    gain: str
    robust: str


@dataclass(frozen=True)
class StabilityRow:
    """How far two maps of the same modules agree."""

    between: str
    at: str
    spearman: str
    p_value: str
    overlap: str


@dataclass(frozen=True)
class Map:
    """The text and tables of a robustness map."""

    result: RobustnessResult
    robust: frozenset[str]
    by_type: tuple[tuple[str, int, int], ...]
    groups: tuple[Group, ...]
    agreements: tuple[StabilityRow, ...]
    probe: str


def runs(report: Report) -> tuple[str, ...]:
    """Labels of the columns: `base`, then the runs in their order."""
    return (BASE_RUN, *(result.run for result in report.training))


def titles(report: Report) -> dict[str, str]:
    """Strategy and safeguards of each run, by its label."""
    return {run.label: title(run) for run in report.spec.runs}


def system_prompts(report: Report) -> dict[str, str]:
    """System prompts that runs must be served with because of their safeguards, by label."""
    prompts = ((run.label, run.safeguards.serving_system_prompt) for run in report.spec.runs)
    return {label: prompt for label, prompt in prompts if prompt is not None}


def proofs(report: Report) -> dict[str, WeightsProof]:
    """The proofs that trained weights change the model, by run."""
    return {proof.run: proof for proof in report.weights}


def training_notes(result: TrainingResult, proof: WeightsProof | None = None) -> tuple[str, ...]:
    """Facts about a run that have no column in the table: warm-up, reduced rates, validation, safeguards, and the proof
    that its stored weights change the model.
    """
    plan = result.plan
    notes: list[str] = []
    if plan.warmup_scales is not None:
        first = sum(scale >= 1 for scale in plan.warmup_scales.values())
        notes.append(f"warm-up of {numbers.plural(first, 'module')} for {100 * plan.warmup_ratio:g} % of the steps")
    if reduced := [scale for scale in plan.scales.values() if 0 < scale < 1]:
        low, high = min(reduced), max(reduced)
        scales = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        notes.append(f"{numbers.plural(len(reduced), 'module')} at {scales} of the standard rate")
    if frozen := sum(scale == 0 for scale in plan.scales.values()):
        notes.append(f"{numbers.plural(frozen, 'module')} frozen")
    if result.best_step is not None:
        lowest = min(point.loss for point in result.validation)
        kept = result.stopped_early and result.end_step in (None, result.best_step)
        early = "; stopped early and kept the weights of this step" if kept else ""
        notes.append(f"lowest validation loss {lowest:.3f} at step {result.best_step}{early}")
    notes += [effect.summary for effect in result.safeguards]
    if proof is not None:
        merging = "" if proof.merged is None else f", merging {100 * proof.merged:.2g} %"
        notes.append(
            f"the stored weights, loaded anew, move {100 * proof.change:.2g} % of the probability of trained tokens "
            f"(rounding {100 * proof.noise:.2g} %{merging})"
        )
    return tuple(notes)


def nothing_to_protect(figures: Sequence[Figure]) -> Figure | None:
    """The base model's attack success rate on direct prompts if it exceeds 50 %, else None.

    Training can hardly make such a model less safe, so an unchanged rate says nothing about a strategy.
    """
    for figure in figures:
        direct = (figure.run, figure.suite, figure.metric) == (BASE_RUN, "direct", "attack_success_rate")
        if direct and figure.n and figure.value > _UNPROTECTED:
            return figure
    return None


def noise_note(report: Report) -> str:
    """What noise is; empty if none was measured."""
    if not any(figure.change is not None and figure.change.noise is not None for figure in report.figures):
        return ""
    return (
        "Noise is how much the base model's own figure differs when it is measured twice, with other batches and, for "
        "sampled attacks, another seed. A change that is no larger than noise may be none. The gate's decision does "
        "not depend on it."
    )


def largest_noise(figures: Iterable[Figure]) -> str:
    """The largest noise of the changes of these figures, which have one unit; empty if none was measured."""
    changes = [(figure.metric, figure.change) for figure in figures if figure.change is not None]
    sizes = [(abs(change.noise.value), metric) for metric, change in changes if change.noise is not None]
    size, metric = max(sizes, default=(0.0, None))
    return "" if metric is None else numbers.distance(metric, size)


def table(report: Report) -> tuple[Row, ...]:
    """All figures: one row for each metric, suite and judge, one column for each run."""
    figures = {(each.metric, each.suite, each.judge, each.run): each for each in report.figures}
    order = list(_METRICS)
    keys = sorted(dict.fromkeys(key[:3] for key in figures), key=lambda key: order.index(key[0]))
    return tuple(
        Row(row_title(*key), tuple(_cell(figures.get((*key, run))) for run in runs(report)), score=key[0] in _SCORES)
        for key in keys
    )


def categories(report: Report) -> tuple[Row, ...]:
    """Attack success rates by category of behaviour over all families: one row for each category and judge."""
    rates = {(rate.category, rate.judge, rate.run): rate for rate in report.categories}
    return tuple(
        Row(f"{category} (judge: {judge})", tuple(_cell(rates.get((category, judge, run))) for run in runs(report)))
        for category, judge in dict.fromkeys(key[:2] for key in rates)
    )


def in_order(types: Iterable[str]) -> tuple[str, ...]:
    """Module types in the order of a transformer block, then all others by name."""
    names = set(types)
    return tuple([kind for kind in _TYPES if kind in names] + sorted(names - set(_TYPES)))


def drift(module: ModuleRobustness, result: RobustnessResult) -> float:
    """Drift of a module in the proxy that the analysis used; higher is more fragile."""
    return module.refusal_drift if result.analysis.proxy == "refusal_drift" else module.feature_drift


def robustness_map(result: RobustnessResult) -> Map:
    """The text and tables of a map."""
    robust = frozenset(result.robust)
    types = {
        kind: [row.module for row in result.modules if row.type == kind]
        for kind in in_order(row.type for row in result.modules)
    }
    return Map(
        result=result,
        robust=robust,
        by_type=tuple((kind, len(robust.intersection(names)), len(names)) for kind, names in types.items()),
        groups=_groups(result),
        agreements=tuple(_agreement(each) for each in result.stability),
        probe=_probe(result),
    )


def row_title(metric: Metric, suite: str, judge: str) -> str:
    """Title of a figure: metric, suite and judge."""
    name = _METRICS[metric] if suite in (OVER_REFUSAL, TASK) else f"{_METRICS[metric]}, {suite.replace('_', ' ')}"
    return name if judge == "none" else f"{name} (judge: {judge})"


def _cell(figure: Figure | CategoryRate | None) -> Cell | None:
    if figure is None:
        return None
    metric: Metric = figure.metric if isinstance(figure, Figure) else "attack_success_rate"
    change = figure.change if isinstance(figure, Figure) else None
    undecided = f", {figure.undecided} undecided" if figure.undecided else ""
    return Cell(
        value=numbers.value(metric, figure.value) if figure.n else "unknown",
        interval=numbers.interval(metric, figure.low, figure.high),
        detail=f"n = {figure.n}{undecided}",
        change=f"{numbers.change(metric, change.value)} ({numbers.change_interval(metric, change.low, change.high)}), "
        f"{numbers.plural(change.n, 'pair')}"
        if change is not None
        else "",
        noise=_noise(metric, change) if change is not None else "",
    )


def _noise(metric: Metric, change: Change) -> str:
    """How much the base model's figure differs from itself; empty if that was not measured."""
    if (noise := change.noise) is None:
        return ""
    size = numbers.distance(metric, noise.value)
    shown = f"no larger than noise, {size}" if change.within_noise else f"noise {size}"
    if metric == "loss":  # almost all losses differ, in their last digits
        return shown
    kind = "verdicts" if metric in _JUDGED else "answers"
    return f"{shown} ({noise.differing} of {noise.compared} {kind} differ)"


def _groups(result: RobustnessResult) -> tuple[Group, ...]:
    """Circuits, types, then bands of layers; finer groups are not shown."""
    counts: dict[tuple[UnitKind, str], RobustCount] = {(each.kind, each.name): each for each in result.chosen}
    refusal = result.analysis.proxy == "refusal_drift"
    seeds = result.analysis.perturbation.seeds
    groups: list[Group] = []
    for row in result.groups:
        if (count := counts.get((row.kind, row.name))) is None:
            continue
        drift = row.refusal_drift if refusal else row.feature_drift
        spread = row.refusal_drift_spread if refusal else row.feature_drift_spread
        shown = f"{drift:.3f} \N{PLUS-MINUS SIGN} {spread:.3f}" if seeds > 1 else f"{drift:.3f}"
        groups.append(Group(row.name, shown, f"{row.task_gain:.3f}", f"{count.robust} of {count.modules}"))
    return tuple(groups)


def _agreement(each: MapStability) -> StabilityRow:
    return StabilityRow(
        between=_COMPARED[each.between],
        at=_MEASURED_AT[each.at],
        spearman=f"{each.spearman:.2f}",
        p_value="below 0.001" if each.p_value < 0.001 else f"{each.p_value:.3f}",
        overlap=f"{numbers.percent(each.overlap)} (by chance {numbers.percent(each.overlap_by_chance)})",
    )


def _probe(result: RobustnessResult) -> str:
    """Length of the probes and the update scale of the search; empty for noise, which needs no probe."""
    if not result.probe_steps:
        return ""
    steps = ", ".join(str(each) for each in result.probe_steps)
    seeds = f" with {len(result.probe_steps)} seeds" if len(result.probe_steps) > 1 else ""
    scale = f", update scale {result.update_scale:.3g} in the search" if result.update_scale != 1 else ""
    return f"{steps} steps{seeds}{scale}"
