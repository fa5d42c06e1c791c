"""From `POST /jobs/{id}/cancel` to `cancelled`, while the job trains.

Target: under 5 s. Both times are the server's. The request falls anywhere between two heartbeats.
"""

import random
import time
from typing import Annotated

import typer

from core.schemas.events import Metrics
from core.schemas.strategy import UniformStrategy
from research.bench.figures import benchmark, spread
from research.bench.service import Service, own_service, small_job

_ROWS = 16
_ENDLESS = 1_000_000
_HEARTBEAT = 1.0


def main(jobs: Annotated[int, typer.Option(min=1, help="Jobs that are cancelled.")] = 8) -> None:
    """Seconds from a request to cancel to the end of the job."""
    rng = random.Random(0)  # noqa: S311 - no secret
    with benchmark("cancel") as figures, own_service() as service:
        dataset = service.upload(_ROWS)
        figures["seconds"] = spread([_cancelled(service, dataset, rng.uniform(0, _HEARTBEAT)) for _ in range(jobs)])
        figures["target_seconds"] = 5.0


def _cancelled(service: Service, dataset: str, later: float) -> float:
    job_id = service.client.create_job(small_job(dataset, UniformStrategy(), steps=_ENDLESS)).id
    service.await_event(job_id, lambda event: isinstance(event.event, Metrics))
    time.sleep(later)
    service.client.cancel(job_id)
    job = service.finished(job_id)
    if job.status != "cancelled" or job.finished_at is None or job.cancel_requested_at is None:
        raise RuntimeError(f"{job_id} is {job.status}")
    return (job.finished_at - job.cancel_requested_at).total_seconds()


if __name__ == "__main__":
    typer.run(main)
