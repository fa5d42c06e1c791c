"""Runs the stages of a job: reports their start, progress, end and speeds, stores results and uses stored ones.

A retry of a job finds the results of finished stages. Results that do not depend on a single job, such as the base
model's answers and robustness maps, are shared between jobs. Not here: what a result depends on (core.pipeline.cache),
what the stages do.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from core.meter import Meter
from core.pipeline.cache import digest
from core.schemas.events import PipelineEvent, Progress, SpeedsMeasured, StageFinished, StageStarted
from core.schemas.speeds import ModelSpeeds, StageSpeed
from core.schemas.state import Stage
from core.storage import ArtifactStore

Emit = Callable[[PipelineEvent], None]
"""Reports an event to the service; raises `Interrupted` to stop the job."""

Result = TypeVar("Result", bound=BaseModel)
Value = TypeVar("Value")
_MIN_SECONDS_BETWEEN = 0.25
"""Time between two progress events."""
_WEIGHTS: dict[Stage, float] = {
    "screening": 1,
    "base_model": 1,
    "dataset": 1,
    "model_screening": 3,
    "before": 4,
    "noise": 4,
    "robustness": 10,
    "training": 12,
    "after": 4,
    "report": 1,
}
"""Estimated share of each stage in the duration of a job."""


class Stages:
    """Runs the stages of one job, in order."""

    def __init__(self, store: ArtifactStore, job_id: str, emit: Emit, planned: Sequence[Stage]) -> None:
        """`planned` lists each stage as often as it will run, so that progress is a share of the whole job."""
        self._store, self._job_id, self.emit = store, job_id, emit
        self._total = sum(_WEIGHTS[stage] for stage in planned)
        self._done = self._furthest = 0.0
        self._stage: Stage = "screening"
        self._run: str | None = None
        self._last_reported = 0.0
        self._reused = False
        self.meter = Meter()
        """Adds up the work of the current stage."""
        self._speeds: list[StageSpeed] = []
        self.speeds: tuple[StageSpeed, ...] = ()
        """The speeds of all stages that have ended."""
        self._measured_on: ModelSpeeds | None = None

    def report_speeds_of(self, model: ModelSpeeds) -> None:
        """From now on, report how fast stages were with this model, beginning with the stages so far."""
        self._measured_on = model
        self._emit_speeds()

    def run(self, stage: Stage, compute: Callable[[], Value], *, run: str | None = None) -> Value:
        """Run a stage without storing its result; `compute` may use `cached` for parts of it."""
        self._stage, self._run, self._last_reported, self._reused = stage, run, 0.0, False
        self.meter.take(stage)
        self.emit(StageStarted(stage=stage, run=run))
        started = time.monotonic()
        result = compute()
        seconds = time.monotonic() - started
        self._done += _WEIGHTS[stage]
        if not self._reused:  # otherwise the rest of the stage is reading stored results
            self.meter.add("other", calls=1, amount=1, seconds=max(0.0, seconds - self.meter.seconds))
        ended = self.meter.take(stage)
        self._speeds += ended
        self.speeds += ended
        self._emit_speeds()
        self._emit_progress(self._done, f"{stage.replace('_', ' ')} done")
        self.emit(StageFinished(stage=stage, run=run, seconds=seconds, reused=self._reused))
        return result

    def run_cached(
        self,
        stage: Stage,
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        inputs: Mapping[str, JsonValue],
        run: str | None = None,
        shared: bool = False,
    ) -> Result:
        """Run a stage, or use its stored result."""
        load = partial(self.cached, run or "all", kind, compute, inputs=inputs, shared=shared)
        return self.run(stage, load, run=run)

    def cached(
        self,
        part: str,
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        inputs: Mapping[str, JsonValue],
        shared: bool = False,
    ) -> Result:
        """The stored result of a part of the current stage; it is computed and stored if there is none.

        `inputs` is everything that the result depends on. A `shared` result is found by other jobs too.
        """
        self._reused = self._reused or self._store.has(self._key(part, inputs, shared=shared))
        return self.remember(part, kind, compute, inputs=inputs, shared=shared)

    def remember(
        self,
        part: str,
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        inputs: Mapping[str, JsonValue],
        shared: bool = False,
    ) -> Result:
        """As `cached`, for a choice that must stay the same: a stored one saves no work of the stage."""
        key = self._key(part, inputs, shared=shared)
        if self._store.has(key):
            return kind.model_validate_json(self._store.path(key).read_bytes())
        result = compute()
        data = result.model_dump_json().encode()
        self._store.put(key, data, name=key, media_type="application/json", gated=False)
        return result

    def report_progress(self, what: str, done: int, total: int, *, part: tuple[float, float] = (0.0, 1.0)) -> None:
        """Report the progress of the current stage, at most four times a second and never decreasing.

        `part` is the range of the stage's progress, within 0 to 1, that `done` of `total` covers.
        """
        now = time.monotonic()
        if now - self._last_reported < _MIN_SECONDS_BETWEEN and done < total:
            return
        self._last_reported = now
        within_stage = part[0] + (part[1] - part[0]) * min(1.0, done / max(1, total))
        self._emit_progress(self._done + _WEIGHTS[self._stage] * within_stage, f"{what} {done} of {total}")

    def with_progress(self, rows: Sequence[Value]) -> Iterator[Value]:
        """Iterate over the rows and report the progress."""
        for number, row in enumerate(rows):
            self.report_progress("row", number, len(rows))
            yield row

    def _emit_speeds(self) -> None:
        if self._measured_on is not None and self._speeds:
            self.emit(SpeedsMeasured(**dict(self._measured_on) | {"speeds": tuple(self._speeds)}))
            self._speeds.clear()

    def _key(self, part: str, inputs: Mapping[str, JsonValue], *, shared: bool) -> str:
        scope = "shared" if shared else f"jobs/{self._job_id}"
        return f"{scope}/stages/{self._stage}-{part}-{digest(inputs)}.json"

    def _emit_progress(self, reached: float, message: str) -> None:
        self._furthest = max(self._furthest, reached)
        fraction = min(1.0, self._furthest / self._total)
        self.emit(Progress(stage=self._stage, run=self._run, fraction=fraction, message=message))
