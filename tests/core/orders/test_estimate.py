"""Estimates from recorded speeds: memory that fits or not, and warnings that say what to do."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from core.db import speeds
from core.db.session import Sessions, transaction
from core.orders import estimate
from core.schemas.estimate import Estimate
from core.schemas.job import JobSpec
from core.schemas.keys import Caller
from core.schemas.memory import MapShape, ModelShape
from core.schemas.speeds import ModelSpeeds, StageSpeed
from core.schemas.training import TrainingSpec
from core.schemas.workload import DataSize, PlannedWork, RunSize, Workload, WorkloadOrder
from core.storage import ArtifactStore
from tests.core.orders.conftest import LISTED

SHAPE = ModelShape(
    parameters=1_000_000,
    layers=2,
    hidden=64,
    intermediate=128,
    heads=4,
    kv_heads=4,
    head_size=16,
    vocabulary=1000,
    context=512,
    tied=True,
    maps=(MapShape(type="q", outputs=64, inputs=64, count=2),),
)
DATA = DataSize(
    rows=20,
    all_rows=True,
    training_rows=18,
    validation_rows=2,
    tokens=900,
    trained_tokens=400,
    longest=60,
    truncated_rows=0,
    dropped_rows=0,
    rejected_rows=0,
)
WORKLOAD = Workload(
    data=DATA,
    max_length=512,
    runs=(RunSize(run="ml_lr", rows=18, steps=6, tokens=3000),),
    answers=40,
    work=(
        PlannedWork(stage="base_model", work="load", calls=1, amount=1),
        PlannedWork(stage="training", run="ml_lr", work="train", calls=6, amount=3000, method="lora"),
    ),
    shape=SHAPE,
    warnings=(),
)
LOAD = StageSpeed(stage="base_model", work="load", calls=1, amount=1, seconds=2, precision="float32")
TRAIN = StageSpeed(
    stage="training", work="train", calls=12, amount=6000, seconds=30, precision="float32", method="lora"
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def record(sessions: Sessions, *measured: StageSpeed, memory: int = 2**34, **fields: object) -> None:
    usual: dict[str, object] = {
        "model": "testbed", "sha256": "0" * 64, "parameters": 1_000_000, "device": "CPU (a), 2 threads",
    }  # fmt: skip
    found = ModelSpeeds.model_validate(usual | {"memory_bytes": memory, "speeds": measured} | fields)
    with transaction(sessions) as session:
        speeds.add(session, found, job_id="job_a")


def codes(found: Estimate) -> Sequence[str]:
    return [warning.code for warning in found.warnings]


def ordered(
    sessions: Sessions,
    store: ArtifactStore,
    caller: Caller,
    spec: JobSpec,
    seen: list[WorkloadOrder],
    *,
    workload: Workload = WORKLOAD,
) -> Estimate:
    def count_work(order: WorkloadOrder) -> Workload:
        seen.append(order)
        return workload

    return estimate(sessions, LISTED, store, caller, spec, count_work=count_work, max_rows=100)


def test_a_measured_model(sessions: Sessions, store: ArtifactStore, caller: Caller, spec: JobSpec) -> None:
    record(sessions, LOAD, TRAIN)
    seen: list[WorkloadOrder] = []
    found = ordered(sessions, store, caller, spec, seen)
    assert [stage.seconds and stage.seconds.expected for stage in found.stages] == pytest.approx([2, 15])
    assert found.total is not None
    assert found.total.expected == pytest.approx(17)
    assert found.memory is not None
    assert (found.memory.fits, found.memory.available_bytes) == (True, 2**34)
    assert codes(found) == []
    (order,) = seen
    assert (order.inputs.spec, order.inputs.dataset.id, order.entry.name) == (found.spec, spec.dataset, "testbed")
    assert order.inputs.spec.training.epochs == 3.0


def test_a_training_that_does_not_fit_is_told_what_to_change(
    sessions: Sessions, store: ArtifactStore, caller: Caller, spec: JobSpec
) -> None:
    record(sessions, LOAD, TRAIN, memory=2**20)
    full = spec.model_copy(update={"training": TrainingSpec(method="full", batch_size=8)})
    found = ordered(sessions, store, caller, full, [])
    assert found.memory is not None
    assert found.memory.fits is False
    (warning,) = [each for each in found.warnings if each.code == "memory_exceeded"]
    for advice in ("training.micro_batch_size (8 rows", "training.max_length", "lora"):
        assert advice in warning.message
    one_row = full.model_copy(update={"training": TrainingSpec(batch_size=8, micro_batch_size=1)})
    (warning,) = ordered(sessions, store, caller, one_row, []).warnings
    assert "micro_batch_size" not in warning.message
    assert "lora" not in warning.message


def test_another_model_on_the_same_worker(
    sessions: Sessions, store: ArtifactStore, caller: Caller, spec: JobSpec
) -> None:
    record(sessions, LOAD, TRAIN, model="large", parameters=4_000_000)
    found = ordered(sessions, store, caller, spec, [])
    assert [stage.seconds and stage.seconds.expected for stage in found.stages] == pytest.approx([0.5, 3.75])
    assert codes(found) == ["speed_of_another_model"]
    assert "those of large, scaled by" in found.warnings[0].message
    assert found.memory is not None
    assert found.memory.fits, "the worker is known by the other model"


def test_work_without_a_model_may_be_measured_in_a_job_of_another(
    sessions: Sessions, store: ArtifactStore, caller: Caller, spec: JobSpec
) -> None:
    record(sessions, LOAD, TRAIN)
    record(sessions, StageSpeed(stage="screening", work="other", calls=1, amount=1, seconds=3), model="large")
    screening = PlannedWork(stage="screening", work="other", calls=1, amount=1)
    whole = WORKLOAD.model_copy(update={"work": (screening, *WORKLOAD.work)})
    found = ordered(sessions, store, caller, spec, [], workload=whole)
    assert [stage.seconds and stage.seconds.expected for stage in found.stages] == pytest.approx([3, 2, 15])
    assert codes(found) == []


def test_work_that_was_never_measured(sessions: Sessions, store: ArtifactStore, caller: Caller, spec: JobSpec) -> None:
    record(sessions, LOAD)
    found = ordered(sessions, store, caller, spec, [])
    assert [stage.missing for stage in found.stages] == [(), ("train",)]
    assert found.total is not None
    assert found.total.expected == pytest.approx(2)
    assert codes(found) == ["speed_unknown"]
    assert "leaves out these stages: training." in found.warnings[0].message


def test_speeds_of_two_devices_are_pointed_out(
    sessions: Sessions, store: ArtifactStore, caller: Caller, spec: JobSpec
) -> None:
    record(sessions, TRAIN)
    record(sessions, LOAD, device="NVIDIA A100", memory=2**36)
    found = ordered(sessions, store, caller, spec, [])
    assert codes(found) == ["speed_of_several_devices"]
    assert found.memory is not None
    assert found.memory.available_bytes == 2**36
    assert found.memory.needed.overhead == 0, "counted for a GPU"
