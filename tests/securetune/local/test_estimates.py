"""Estimates on a whole service: what a job is estimated to cost is what it then costs.

Not here: how durations follow from speeds (tests/core/orders/test_durations.py), counts of work
(tests/core/pipeline/test_run.py).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.schemas.replies import JobReply
from securetune import SecureTune
from securetune.local.running import running
from testbed import DATA_DIR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
"""Two jobs of a minute each, which a busy machine makes several times as long."""

_LEAST_SECONDS = 1.0
"""Shorter stages are not compared: a busy machine delays them by their own length."""
_FACTOR = 2.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureTune]:
    with (
        running(tmp_path_factory.mktemp("estimates") / "state") as address,
        SecureTune(address.address, address.api_key) as service,
    ):
        yield service


def upload(service: SecureTune, folder: Path, count: int) -> str:
    """Upload the first rows of the testbed's instructions."""
    path = folder / f"rows-{count}.jsonl"
    path.write_text("\n".join((DATA_DIR / "instructions.jsonl").read_text().splitlines()[:count]))
    return service.upload_dataset(path).id


def finish(service: SecureTune, spec: dict[str, object]) -> JobReply:
    """Create a job and wait until it ends."""
    *_, job = service.watch(service.create_job(spec).id)
    assert job.status == "succeeded", job.error
    return job


def stage_seconds(service: SecureTune, job: JobReply) -> dict[tuple[str, str | None], float]:
    """How long each stage of a job took."""
    finished = [entry.event for entry in service.events(job.id) if entry.event.type == "stage_finished"]
    return {(event.stage, event.run): event.seconds for event in finished}


def test_a_larger_job_takes_what_it_is_estimated_to_take(service: SecureTune, tmp_path: Path) -> None:
    small: dict[str, object] = {
        "base_model": "testbed",
        "dataset": upload(service, tmp_path, 300),
        "training": {"steps": 20, "batch_size": 16},
        "strategy": {"kind": "uniform"},
        "security": {"suite": "quick", "max_prompts": 12, "max_new_tokens": 24, "measure_noise": False},
        "quality": {"max_rows": 40, "max_answers": 4, "max_new_tokens": 32},
    }
    large: dict[str, object] = small | {
        "dataset": upload(service, tmp_path, 600),
        "training": {"epochs": 1, "batch_size": 16},
    }
    assert service.estimate(small).total is None, "nothing has been measured yet"
    first = finish(service, small)
    estimate = service.estimate(large)
    assert {basis.job_id for stage in estimate.stages for basis in stage.basis} == {first.id}
    assert [stage.stage for stage in estimate.stages if stage.seconds is None] == []
    assert estimate.memory is not None
    assert estimate.memory.fits
    second = finish(service, large)
    assert {run.run: run.steps for run in estimate.runs} == {
        run.run: run.steps for run in service.report(second.id).training
    }
    took = stage_seconds(service, second)
    estimated = {(stage.stage, stage.run): stage.seconds.expected for stage in estimate.stages if stage.seconds}
    runs = [key for key in estimated if key[0] == "training"]
    assert all(took[run] > _LEAST_SECONDS for run in runs), took
    ratios = [estimated[run] / took[run] for run in runs] + [sum(estimated.values()) / sum(took.values())]
    assert all(1 / _FACTOR < ratio < _FACTOR for ratio in ratios), (ratios, estimated, took)
