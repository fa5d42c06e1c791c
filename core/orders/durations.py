"""From counted work and measured speeds to durations. Pure: nothing is queried or measured here.

Work that is larger in calls by one factor and in amount by another takes between both factors as long, because the cost
of a call has a fixed part and one that grows. The expected factor is their geometric mean. Not here: counting work
(core.pipeline.workload), measuring speeds (core.meter), queries (core.db.speeds).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from core.schemas.estimate import Basis, Seconds, StageEstimate
from core.schemas.speeds import MeasuredSpeed, Work
from core.schemas.state import Stage
from core.schemas.workload import PlannedWork

_REPEAT = 1.3
"""Factor by which every range is widened each way, because the same work does not always take the same time."""
_ROUGH = 2.0
"""Factor of uncertainty of speeds that were measured with another model, method or kind of reading."""
_LEAST_SECONDS = 1.0
"""Shorter measurements are mostly the start of something. They only count if there are no others."""
_INSTEAD: dict[Work, tuple[Work, float]] = {
    "analyse": ("read", 1.0),
    "answer_rows": ("answer", 1.0),
    "read": ("train", 1 / 3),
}
"""Work that takes about as long, times a factor, if there is no measurement of the same work. Measurements of an
analysis read rows; reading is a third of training, because a backward pass costs two forward passes."""
_REUSABLE: frozenset[Stage] = frozenset({"screening", "model_screening", "before", "noise", "robustness"})
MODEL_FREE: frozenset[Stage] = frozenset({"screening", "dataset", "report"})
"""Stages whose duration does not depend on the number of parameters."""
_EVALUATIONS: frozenset[Stage] = frozenset({"before", "noise", "after"})
"""Stages that measure a model, with the same work."""


@dataclass(frozen=True)
class Subject:
    """The model of the job, and how it will be computed."""

    model: str
    parameters: int | None
    """Number of parameters; None if it is not known."""
    precision: str | None
    """Number format that the order asks for; None for that of the worker."""


@dataclass(frozen=True)
class _Choice:
    """Measurements of comparable work, newest first."""

    found: Sequence[MeasuredSpeed]
    factor: float
    """Factor on their seconds."""
    rough: bool
    by_calls: bool = False
    """Whether only the number of calls is comparable."""


def estimate_stages(
    planned: Iterable[PlannedWork], speeds: Sequence[MeasuredSpeed], subject: Subject
) -> tuple[StageEstimate, ...]:
    """Estimate every stage. `speeds` are measurements of any model, newest first."""
    return tuple(
        _estimate_stage(stage, run, [*work], speeds, subject)
        for (stage, run), work in groupby(planned, key=lambda each: (each.stage, each.run))
    )


def add_up(stages: Iterable[StageEstimate]) -> Seconds | None:
    """The sum of the stages that have a duration; None if none has one."""
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    return _sum(known) if known else None


def _estimate_stage(
    stage: Stage, run: str | None, work: Sequence[PlannedWork], speeds: Sequence[MeasuredSpeed], subject: Subject
) -> StageEstimate:
    durations: list[Seconds] = []
    basis: list[Basis] = []
    missing: list[Work] = []
    for each in work:
        choice = _choose(each, speeds, subject)
        if choice is not None:
            duration, source = _predict(each, choice)
            durations.append(duration)
            basis.append(source)
        elif each.work != "other" or len(work) == 1:  # what is left of a stage is small beside its other work
            missing.append(each.work)
    return StageEstimate(
        stage=stage,
        run=run,
        seconds=None if missing else _sum(durations),
        reusable=stage in _REUSABLE,
        basis=tuple(basis),
        missing=tuple(missing),
    )


def _choose(work: PlannedWork, speeds: Sequence[MeasuredSpeed], subject: Subject) -> _Choice | None:
    """The measurements of the most comparable work; None if there are none at all."""
    for found, rough in _by_likeness(work, [each for each in speeds if each.work == work.work], subject):
        factor = _scale(found[0], work, subject)
        if factor is not None:
            return _Choice(_comparable(found), factor, rough)
    instead, factor = _INSTEAD.get(work.work, (None, 1.0))
    if instead is None or not any(each.work == instead for each in speeds):
        return None
    choice = _choose(work.model_copy(update={"work": instead, "method": None}), speeds, subject)
    return choice and _Choice(choice.found, factor * choice.factor, rough=True, by_calls=work.work == "analyse")


def _by_likeness(
    work: PlannedWork, speeds: Sequence[MeasuredSpeed], subject: Subject
) -> Iterator[tuple[Sequence[MeasuredSpeed], bool]]:
    """Measurements that are less and less like the work, and whether the comparison is rough: of the same stage, of
    stages with the same work, of any stage, of another method or number format; then those of other models.
    """
    twins = _EVALUATIONS if work.stage in _EVALUATIONS else frozenset({work.stage})
    stages = twins if work.work == "other" else frozenset(get_args(Stage))
    for model_is_own in (True, False):
        of_model = [each for each in speeds if (each.model == subject.model) == model_is_own]
        exact = [each for each in of_model if _is_done_alike(work, each, subject)]
        tiers = (
            ([each for each in exact if each.stage == work.stage], False),
            ([each for each in exact if each.stage in twins], False),
            ([each for each in exact if each.stage in stages], True),
            ([each for each in of_model if each.stage in stages], True),
        )
        yield from ((found, rough or not model_is_own) for found, rough in tiers if found)


def _is_done_alike(work: PlannedWork, measured: MeasuredSpeed, subject: Subject) -> bool:
    """Whether the same method was used, and for training the number format that the order asks for."""
    formats = (None, measured.precision) if work.work == "train" else (subject.precision,)
    return measured.method == work.method and subject.precision in formats


def _comparable(found: Sequence[MeasuredSpeed]) -> Sequence[MeasuredSpeed]:
    """Those measured like the newest, on the same device, without very short ones if there are others."""
    first = found[0]
    same = [
        each
        for each in found
        if (each.device, each.model, each.stage, each.method, each.precision)
        == (first.device, first.model, first.stage, first.method, first.precision)
    ]
    return [each for each in same if each.seconds >= _LEAST_SECONDS] or same[:1]


def _scale(measured: MeasuredSpeed, work: PlannedWork, subject: Subject) -> float | None:
    """The factor between two models; None if the size of the job's model is not known."""
    if work.stage in MODEL_FREE:
        return 1.0
    if subject.parameters is None:
        return 1.0 if measured.model == subject.model else None
    return subject.parameters / measured.parameters


def _predict(work: PlannedWork, choice: _Choice) -> tuple[Seconds, Basis]:
    """The duration by the measurement of the most similar size, within the range of all comparable ones."""

    def factors(measured: MeasuredSpeed) -> tuple[float, float]:
        calls = (work.amount if choice.by_calls else work.calls) / measured.calls
        low, high = sorted((calls, calls if choice.by_calls else work.amount / measured.amount))
        return low, high

    def distance(measured: MeasuredSpeed) -> float:
        return sum(abs(math.log(factor)) for factor in factors(measured))

    best = min(choice.found, key=distance)
    ranges = [tuple(factor * each.seconds for factor in factors(each)) for each in choice.found]
    expected = best.seconds * math.sqrt(math.prod(factors(best)))
    spread = _REPEAT * (_ROUGH if choice.rough else 1.0)
    seconds = Seconds(
        low=choice.factor * min(low for low, _ in ranges) / spread,
        expected=choice.factor * expected,
        high=choice.factor * max(high for _, high in ranges) * spread,
    )
    source = Basis(
        work=work.work,
        stage=best.stage,
        model=best.model,
        device=best.device,
        job_id=best.job_id,
        measured_at=best.measured_at,
    )
    return seconds, source


def _sum(durations: Sequence[Seconds]) -> Seconds:
    return Seconds(
        low=sum(each.low for each in durations),
        expected=sum(each.expected for each in durations),
        high=sum(each.high for each in durations),
    )
