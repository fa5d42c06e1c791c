"""The real thing: a Celery worker trains the testbed, its process and then it are killed with -9, and the job is done
once.

Not here: what the figures mean (tests/core).
"""

import signal
from hashlib import sha256
from itertools import islice

import psutil
import pytest

from core import queue
from core.db import datasets, jobs
from core.db.models import Dataset
from core.db.rows import add_upload
from core.db.session import transaction
from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.attacks import Direct
from core.schemas.data import DatasetSummary
from core.schemas.job import JobSpec
from core.schemas.quality import QualitySpec
from core.schemas.security import SecuritySpec
from core.schemas.strategy import MlLrStrategy
from core.schemas.training import TrainingSpec
from core.storage import ArtifactStore
from tests.worker.helpers import ROOT, CeleryWorker, Service, StartWorker, alive, until

pytestmark = pytest.mark.slow

ROWS = 60
STEPS = 20
"""So many that a training which has begun is killed before it ends."""


def upload(service: Service) -> str:
    """A part of the testbed's own data, stored as the API stores it."""
    with (ROOT / "testbed" / "data" / "arithmetic.jsonl").open("rb") as file:
        data = b"".join(islice(file, ROWS))
    stored = ArtifactStore(service.store).put(
        "uploads/sums", data, name="sums.jsonl", media_type="application/jsonl", gated=False
    )
    summary = DatasetSummary(
        file_format="jsonl",
        row_format="messages",
        rows=ROWS,
        turns=2 * ROWS,
        assistant_turns=ROWS,
        characters=len(data),
        longest_row_characters=200,
    )
    with transaction(service.sessions) as session:
        row, _ = add_upload(
            session,
            Dataset,
            id=datasets.identity(stored.sha256, None),
            name="sums.jsonl",
            sha256=stored.sha256,
            bytes=len(data),
            key=stored.key,
            columns=None,
            summary=summary.model_dump(),
        )
        return row.id


def training_processes(worker: int) -> list[psutil.Process]:
    """The training processes of a worker, waiting ones too."""
    return [child for child in psutil.Process(worker).children() if "worker.process" in child.cmdline()]


def kill_process(worker: CeleryWorker) -> None:
    """What an operator or the kernel's out-of-memory killer does to the training process."""
    (process,) = training_processes(worker.process.pid)
    environment = process.environ()
    assert "DATABASE_URL" not in environment
    assert "REDIS_URL" not in environment
    process.send_signal(signal.SIGKILL)


def kill_worker(worker: CeleryWorker) -> None:
    """The same to the worker, which leaves nothing running."""
    processes = training_processes(worker.process.pid)
    worker.kill()
    until(lambda: not any(alive(process.pid) for process in processes), "its processes end themselves")


def test_a_training_that_is_killed_twice_goes_on_and_is_done_once(
    service: Service, redis_url: str, start_worker: StartWorker
) -> None:
    worker = start_worker(app="worker.main", SECURETUNE_THREADS="1")
    spec = JobSpec(
        base_model="testbed",
        dataset=upload(service),
        training=TrainingSpec(steps=STEPS, batch_size=8),
        strategy=MlLrStrategy(analysis=AnalysisSpec(perturbation=NoisePerturbation(seeds=1), probes=8)),
        security=SecuritySpec(attacks=(Direct(),), max_prompts=4, max_new_tokens=16, measure_noise=False),
        quality=QualitySpec(max_rows=4),
    )
    with transaction(service.sessions) as session:
        job_id = jobs.add(session, spec).id
    celery = queue.app(redis_url)
    queue.send(celery, job_id)
    celery.close()

    def training(attempt: int) -> bool:
        return any(
            (event.type, event.attempt, event.data.get("stage")) == ("stage_started", attempt, "training")
            for event in service.events(job_id)
        )

    until(lambda: training(1), "training begins", seconds=90)
    kill_process(worker)
    until(lambda: training(2), "the same worker begins again", seconds=90)
    kill_worker(worker)
    second = start_worker("second", app="worker.main", SECURETUNE_THREADS="1")
    until(lambda: service.ended(job_id), "done on the third attempt", seconds=90)

    job = service.job(job_id)
    assert (job.status, job.attempt, job.failures, job.error) == ("succeeded", 3, 2, None), second.log.read_text()
    assert service.statuses(job_id) == ["running", "interrupted", "running", "running", "succeeded"]
    events = service.events(job_id)
    for attempt in (2, 3):
        finished = [event for event in events if event.type == "stage_finished" and event.attempt == attempt]
        reused = {event.data["stage"]: event.data["reused"] for event in finished}
        assert reused["before"] is True
        assert reused["robustness"] is True
        assert reused.get("training") is (False if attempt == 3 else None)
    steps = [event.data["step"] for event in events if event.type == "metrics" and event.attempt == 3]
    assert steps == list(range(1, STEPS + 1))
    figures = service.figures(job_id)
    assert {figure.run for figure in figures} == {"base", "ml_lr"}
    artifacts = {artifact.name: artifact for artifact in service.artifacts(job_id)}
    assert {"report.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= artifacts.keys()
    for artifact in artifacts.values():
        data = (service.store / artifact.key).read_bytes()
        assert sha256(data).hexdigest() == artifact.sha256
        assert f"/{job_id}/attempts/3/" in artifact.key
