"""Stages store results that the next attempt uses, completely or not at all, and report the progress of the job."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from core.errors import Interrupted
from core.pipeline.stages import Emit, Stages
from core.schemas.base import Frozen
from core.schemas.events import PipelineEvent, Progress, StageFinished, StageStarted
from core.schemas.results import StoredFile
from core.schemas.state import Stage
from core.storage import ArtifactStore


class Number(Frozen):
    """A result."""

    value: int
    """Its value."""


class Counted:
    """Computes a number and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Number:
        self.calls += 1
        return Number(value=self.calls)


def nobody(_event: PipelineEvent) -> None:
    """Ignores the event."""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def make(store: ArtifactStore) -> Callable[..., Stages]:
    def _make(job: str = "job_a", emit: Emit = nobody, planned: tuple[Stage, ...] = ("robustness",)) -> Stages:
        return Stages(store, job, emit, planned)

    return _make


def test_the_next_attempt_uses_a_stored_result(make: Callable[..., Stages]) -> None:
    compute = Counted()
    first = make().run_cached("robustness", Number, compute, inputs={"a": 1, "b": [2, None]})
    events: list[PipelineEvent] = []
    second = make(emit=events.append).run_cached("robustness", Number, compute, inputs={"b": [2, None], "a": 1})
    assert first == second == Number(value=1)
    assert compute.calls == 1
    assert isinstance(events[0], StageStarted)
    assert isinstance(events[-1], StageFinished)
    assert events[-1].reused is True


@pytest.mark.parametrize("shared", [True, False])
def test_results_are_distinguished_by_stage_run_and_inputs(make: Callable[..., Stages], *, shared: bool) -> None:
    compute = Counted()

    def ask(stage: Stage, number: int, run: str | None, job: str = "job_a") -> int:
        stages = make(job=job, planned=(stage,))
        return stages.run_cached(stage, Number, compute, inputs={"n": number}, run=run, shared=shared).value

    cases: list[tuple[Stage, int, str | None]] = [
        ("robustness", 1, None),
        ("robustness", 2, None),
        ("robustness", 1, "x"),
        ("robustness", 1, "y"),
        ("training", 1, "x"),
    ]
    assert [ask(*case) for case in cases] == [1, 2, 3, 4, 5]
    assert [ask(*case) for case in cases] == [1, 2, 3, 4, 5]
    # Another job finds what is shared and nothing else.
    assert ask("robustness", 1, None, job="job_b") == (1 if shared else 6)


def test_a_stage_without_a_stored_result_runs_each_time(make: Callable[..., Stages], store: ArtifactStore) -> None:
    compute = Counted()
    stages = make(planned=("dataset", "dataset"))
    assert [stages.run("dataset", compute).value for _ in range(2)] == [1, 2]
    assert not any(store.root.rglob("*.json"))


def files(store: ArtifactStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_failed_stage_stores_nothing(make: Callable[..., Stages], store: ArtifactStore) -> None:
    def fail() -> Number:
        raise Interrupted("stop")

    events: list[PipelineEvent] = []
    with pytest.raises(Interrupted):
        make(emit=events.append).run_cached("robustness", Number, fail, inputs={})
    assert files(store) == []
    assert not any(isinstance(event, StageFinished) for event in events)


class _Crashes(ArtifactStore):
    """Crashes after the bytes are written and before they are moved into place."""

    @override
    def adopt(
        self, key: str, path: Path, *, name: str, media_type: str = "application/octet-stream", gated: bool
    ) -> StoredFile:
        assert path.stat().st_size > 0
        raise KeyboardInterrupt


def test_a_crash_while_storing_leaves_no_partial_file(store: ArtifactStore) -> None:
    compute = Counted()
    with pytest.raises(KeyboardInterrupt):
        Stages(_Crashes(store.root), "job_a", nobody, ["robustness"]).run_cached(
            "robustness", Number, compute, inputs={}
        )
    assert files(store) == []
    found = Stages(store, "job_a", nobody, ["robustness"]).run_cached("robustness", Number, compute, inputs={})
    assert found == Number(value=2)
    assert [path.read_bytes() for path in files(store)] == [b'{"value":2}']


PLAN: tuple[Stage, ...] = ("base_model", "dataset", "before", "robustness", "training", "after", "report")
TICKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10), st.floats(0, 1), st.floats(0, 1)), max_size=5).map(
    lambda ticks: [(done, total, tuple(sorted(part))) for done, total, *part in ticks]
)


@given(st.lists(st.tuples(st.sampled_from(PLAN), TICKS), min_size=1, max_size=12))
def test_progress_never_decreases_and_ends_at_1(
    plan: list[tuple[Stage, list[tuple[int, int, tuple[float, float]]]]],
) -> None:
    events: list[PipelineEvent] = []
    stages = Stages(ArtifactStore(Path("unused")), "job_a", events.append, [stage for stage, _ in plan])
    for stage, ticks in plan:

        def compute(ticks: list[tuple[int, int, tuple[float, float]]] = ticks) -> None:
            for done, total, part in ticks:
                stages.report_progress("thing", done, total, part=part)

        stages.run(stage, compute)
    told = [event for event in events if isinstance(event, Progress)]
    fractions = [event.fraction for event in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(plan) == 1 or fractions[0] < 1.0
    ends = [
        event.fraction
        for event, after in pairwise(events)
        if isinstance(event, Progress) and isinstance(after, StageFinished)
    ]
    assert len(ends) == len(plan)
    assert len(set(ends)) == len(plan), "every stage is a share of the whole"


def test_parts_of_a_stage_are_shares_of_its_progress(make: Callable[..., Stages]) -> None:
    events: list[PipelineEvent] = []
    stages = make(emit=events.append, planned=("dataset", "after", "report", "training"))  # 1 + 4 + 1 + 12

    def compute() -> None:
        stages.report_progress("answer", 1, 2, part=(0.0, 0.5))
        stages.report_progress("row", 4, 4, part=(0.5, 1.0))
        stages.report_progress("row", 5, 4, part=(0.0, 0.1))

    stages.run("dataset", lambda: None)
    stages.run("after", compute, run="x")
    told = [event for event in events if isinstance(event, Progress)]
    assert [event.fraction * 18 for event in told] == pytest.approx([1, 2, 5, 5, 5])
    assert [(event.stage, event.run) for event in told] == [("dataset", None)] + [("after", "x")] * 4
    assert told[1].message == "answer 1 of 2"
    assert told[-1].message == "after done"


def test_progress_is_throttled_but_the_last_update_is_always_emitted(make: Callable[..., Stages]) -> None:
    events: list[PipelineEvent] = []
    stages = make(emit=events.append)
    stages.run("robustness", lambda: [stages.report_progress("step", done, 10_000) for done in range(10_001)])
    messages = [event.message for event in events if isinstance(event, Progress)]
    assert messages[0] == "step 0 of 10000"
    assert "step 10000 of 10000" in messages
    assert len(messages) < 50


def test_emit_can_stop_the_job(make: Callable[..., Stages]) -> None:
    def stop(event: PipelineEvent) -> None:
        if isinstance(event, Progress):
            raise Interrupted("stop")

    stages = make(emit=stop)
    compute = Counted()
    with pytest.raises(Interrupted):
        stages.run("robustness", lambda: (stages.report_progress("step", 0, 2), compute()))
    assert compute.calls == 0


def test_parts_of_a_stage_are_stored_separately(make: Callable[..., Stages]) -> None:
    events: list[PipelineEvent] = []
    one, other = Counted(), Counted()

    def work(stages: Stages, *, whole: bool) -> Callable[[], int]:
        def parts() -> int:
            first = stages.cached("one", Number, one, inputs={}, shared=True)
            return first.value + (stages.cached("other", Number, other, inputs={}).value if whole else 0)

        return parts

    for whole in (False, True, True):
        stages = make(emit=events.append, planned=("before",))
        stages.run("before", work(stages, whole=whole))
    assert (one.calls, other.calls) == (1, 1)
    finished = [event.reused for event in events if isinstance(event, StageFinished)]
    assert finished == [False, True, True]
