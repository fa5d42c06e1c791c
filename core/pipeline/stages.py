"""Stages of a job: each says that it begins and ends, and leaves a result that a second attempt takes up again.

A result is stored under a digest of everything it hangs on, so a retry finds it and a changed input does not. Results
that hang on no job (the base model's security figures, the robustness map) are shared between jobs.
Covers: stored results, progress of the whole job. Not here: what the stages do (core.pipeline).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from core.pipeline.cache import ResultCache
from core.schemas.events import PipelineEvent, Progress, StageFinished, StageStarted
from core.schemas.state import Stage
from core.storage import ArtifactStore

Emit = Callable[[PipelineEvent], None]
"""Tells the service what happens; raises `Interrupted` when the job is to stop."""

Result = TypeVar("Result", bound=BaseModel)
Thing = TypeVar("Thing")
_SECONDS_BETWEEN = 0.25
_WEIGHTS: dict[Stage, float] = {
    "screening": 1,
    "base_model": 1,
    "dataset": 1,
    "model_screening": 3,
    "before": 4,
    "robustness": 10,
    "training": 12,
    "after": 4,
    "report": 1,
}


class Stages:
    """Runs the stages of one job, in order."""

    def __init__(self, store: ArtifactStore, job_id: str, emit: Emit, planned: Sequence[Stage]) -> None:
        """`planned` names every stage as often as it will run, so that progress is a share of the whole job."""
        self._cache, self.emit = ResultCache(store, job_id), emit
        self._whole = sum(_WEIGHTS[stage] for stage in planned)
        self._done = self._furthest = 0.0
        self._stage: Stage = "screening"
        self._run: str | None = None
        self._told = 0.0
        self._found = False

    def run(self, stage: Stage, compute: Callable[[], Thing], *, run: str | None = None) -> Thing:
        """Do a stage; what of it is worth keeping, `compute` keeps."""
        started = self._begin(stage, run)
        result = compute()
        self._end(started)
        return result

    def stored(
        self,
        stage: Stage,
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        inputs: Mapping[str, JsonValue],
        run: str | None = None,
        shared: bool = False,
    ) -> Result:
        """Do a stage, or take its stored result. `inputs` is everything that the result hangs on."""
        keep = partial(self.kept, run or "all", kind, compute, inputs=inputs, shared=shared)
        return self.run(stage, keep, run=run)

    def kept(
        self,
        part: str,
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        inputs: Mapping[str, JsonValue],
        shared: bool = False,
    ) -> Result:
        """A part of the stage at hand: its stored result, or else computed and stored."""
        result, found = self._cache.load_or_compute(
            f"{self._stage}-{part}", kind, compute, inputs=inputs, shared=shared
        )
        self._found = self._found or found
        return result

    def report_progress(self, what: str, done: int, total: int, *, part: tuple[float, float] = (0.0, 1.0)) -> None:
        """Say how far the stage is; told on at most four times a second, and never backwards.

        `part` is the share of the stage, from where to where, that `done` of `total` counts in.
        """
        now = time.monotonic()
        if now - self._told < _SECONDS_BETWEEN and done < total:
            return
        self._told = now
        inside = part[0] + (part[1] - part[0]) * min(1.0, done / max(1, total))
        self._progress(self._done + _WEIGHTS[self._stage] * inside, f"{what} {done} of {total}")

    def counted(self, rows: Sequence[Thing]) -> Iterator[Thing]:
        """The rows, with progress as they are taken."""
        for number, row in enumerate(rows):
            self.report_progress("row", number, len(rows))
            yield row

    def _begin(self, stage: Stage, run: str | None) -> float:
        self._stage, self._run, self._told = stage, run, 0.0
        self._found = False
        self.emit(StageStarted(stage=stage, run=run))
        return time.monotonic()

    def _end(self, started: float) -> None:
        self._done += _WEIGHTS[self._stage]
        seconds = time.monotonic() - started
        self._progress(self._done, f"{self._stage.replace('_', ' ')} done")
        self.emit(StageFinished(stage=self._stage, run=self._run, seconds=seconds, reused=self._found))

    def _progress(self, reached: float, message: str) -> None:
        self._furthest = max(self._furthest, reached)
        fraction = min(1.0, self._furthest / self._whole)
        self.emit(Progress(stage=self._stage, run=self._run, fraction=fraction, message=message))
