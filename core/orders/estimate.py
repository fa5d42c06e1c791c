"""The estimate of a job: the same checks as for a job, then its size, duration and memory. Nothing is stored.

Not here: counting the work (core.pipeline.workload, by a process of the API), durations (core.orders.durations), the
memory of a training (core.memory).
"""

from collections.abc import Callable, Iterator, Sequence

from core import catalog
from core.catalog import Catalog
from core.db import speeds
from core.db.session import Sessions, transaction
from core.memory import estimate_memory, fits
from core.orders.check import complete
from core.orders.durations import MODEL_FREE, Subject, add_up, estimate_stages
from core.orders.place import accept
from core.schemas.estimate import Estimate, MemoryEstimate, StageEstimate
from core.schemas.events import Warned
from core.schemas.job import JobSpec
from core.schemas.keys import Caller
from core.schemas.memory import WeightFormat
from core.schemas.speeds import MeasuredSpeed
from core.schemas.workload import Workload, WorkloadOrder
from core.storage import ArtifactStore

CountWork = Callable[[WorkloadOrder], Workload]
"""Counts the work of a job; may raise InvalidInput or Unavailable."""


def estimate(
    sessions: Sessions,
    listed: Catalog,
    store: ArtifactStore,
    caller: Caller,
    spec: JobSpec,
    *,
    count_work: CountWork,
    max_rows: int,
) -> Estimate:
    """Estimate a job that is not created.

    Raises:
        InvalidInput, InvalidModel, NotFound: creating the job would fail in the same way, or the job itself would.
        Unavailable: the database cannot be reached, or any error of `count_work`.
    """
    spec = complete(spec, listed)
    with transaction(sessions) as session:
        inputs = accept(session, listed, caller, spec)
        measured = speeds.newest(session)
    entry = catalog.find(listed.models, spec.base_model)
    workload = count_work(WorkloadOrder(inputs=inputs, store=store.root.absolute(), max_rows=max_rows, entry=entry))
    own = [each for each in measured if each.model == spec.base_model]
    parameters = workload.shape.parameters if workload.shape else next((each.parameters for each in own), None)
    precision = None if spec.training.precision == "auto" else spec.training.precision
    stages = estimate_stages(workload.work, measured, Subject(spec.base_model, parameters, precision))
    memory = _estimate_memory(spec, workload, own or measured)
    return Estimate(
        spec=spec,
        data=workload.data,
        max_length=workload.max_length,
        runs=workload.runs,
        answers=workload.answers,
        stages=stages,
        total=add_up(stages),
        memory=memory,
        warnings=(*_stage_warnings(spec, stages), *_memory_warnings(spec, memory), *workload.warnings),
    )


def _estimate_memory(spec: JobSpec, workload: Workload, measured: Sequence[MeasuredSpeed]) -> MemoryEstimate | None:
    """The memory of the training on the device that was measured last; without a measurement, on a CPU in float32."""
    if workload.shape is None:
        return None
    training = spec.training
    newest = measured[0] if measured else None
    on_gpu = newest is not None and not newest.device.startswith("CPU")
    needed = estimate_memory(
        workload.shape,
        method=training.method,
        lora_rank=training.lora.rank,
        targets=training.lora.targets,
        rows_per_pass=min(training.micro_batch_size or training.batch_size, workload.data.training_rows),
        length=workload.data.longest,
        weights=_weight_format(spec, measured, on_gpu=on_gpu),
        device="cuda" if on_gpu else "cpu",
    )
    available = newest.memory_bytes if newest else None
    return MemoryEstimate(
        needed=needed, available_bytes=available, fits=None if available is None else fits(needed, available)
    )


def _weight_format(spec: JobSpec, measured: Sequence[MeasuredSpeed], *, on_gpu: bool) -> WeightFormat:
    """Number format of the base weights: that of the last load with the same options, or the default of the device."""
    if spec.training.method == "qlora":
        return "nf4"
    if spec.training.precision == "auto":
        formats: dict[str | None, WeightFormat] = {"float32": "float32", "bfloat16": "bfloat16"}
        loads = (each.precision for each in measured if each.work == "load")
        return formats.get(next(loads, None), "bfloat16" if on_gpu else "float32")
    return spec.training.precision


def _stage_warnings(spec: JobSpec, stages: Sequence[StageEstimate]) -> Iterator[Warned]:
    if unknown := [stage for stage in stages if stage.seconds is None]:
        names = ", ".join(dict.fromkeys(stage.stage.replace("_", " ") for stage in unknown))
        works = ", ".join(dict.fromkeys(work.replace("_", " ") for stage in unknown for work in stage.missing))
        yield Warned(
            code="speed_unknown",
            message=f"The total leaves out these stages: {names}. No speed of this work has been measured yet "
            f"({works}). Run `securetune models check {spec.base_model}`, or a first job.",
        )
    basis = [each for stage in stages for each in stage.basis]
    of_others = [each for stage in stages if stage.stage not in MODEL_FREE for each in stage.basis]
    if others := sorted({each.model for each in of_others if each.model != spec.base_model and each.work != "judge"}):
        yield Warned(
            code="speed_of_another_model",
            message=f"{spec.base_model} has not been measured, so its times are those of {', '.join(others)}, scaled "
            "by the number of parameters. Run a first job, or `securetune models check`, for a better estimate.",
        )
    if len(devices := sorted({each.device for each in basis})) > 1:
        yield Warned(
            code="speed_of_several_devices",
            message=f"The speeds were measured on different devices: {', '.join(devices)}. The job runs on one.",
        )


def _memory_warnings(spec: JobSpec, memory: MemoryEstimate | None) -> Iterator[Warned]:
    if memory is None or memory.fits is not False or memory.available_bytes is None:
        return
    training = spec.training
    rows = training.micro_batch_size or training.batch_size
    advice = [
        f"lower training.micro_batch_size ({rows} rows per pass now)" if rows > 1 else "",
        f"lower training.max_length ({training.max_length} tokens now)",
        "use the method lora, or qlora on a GPU" if training.method == "full" else "",
    ]
    yield Warned(
        code="memory_exceeded",
        message=f"The training needs about {memory.needed.total / 2**30:.1f} GiB, more than 90 % of the worker's "
        f"{memory.available_bytes / 2**30:.1f} GiB. To make it fit: {'; '.join(filter(None, advice))}; or choose a "
        "smaller model.",
    )
