"""A service of one's own to measure, its processes, and small things to send it.

Not here: what is measured.
"""

import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

from core.schemas.attacks import Direct
from core.schemas.job import JobSpec
from core.schemas.quality import QualitySpec
from core.schemas.replies import EventReply, JobReply
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy
from core.schemas.training import TrainingSpec
from securetune import SecureTune
from securetune.local import Address, running
from testbed import DATA_DIR

_IDLE_SECONDS = 1.5
_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Service:
    """A running service, a client of it, and a folder for files."""

    address: Address
    client: SecureTune
    folder: Path

    def processes(self, word: str) -> list[psutil.Process]:
        """Its processes with this word in their command line."""
        children = psutil.Process(self.address.pid).children(recursive=True)
        return [child for child in children if any(word in part for part in child.cmdline())]

    def await_warm(self) -> None:
        """Wait until a training process has loaded everything and waits for an order: it uses no processor time.

        Raises:
            TimeoutError: it is busy for minutes.
        """
        give_up = time.monotonic() + _PATIENCE_SECONDS
        seen: dict[int, tuple[float, float]] = {}
        while time.monotonic() < give_up:
            now = time.monotonic()
            for process in self.processes("worker.process"):
                times = process.cpu_times()
                used = times.user + times.system
                if seen.get(process.pid, (0.0, -1.0))[1] != used:
                    seen[process.pid] = (now, used)
                elif now - seen[process.pid][0] > _IDLE_SECONDS and used > _IDLE_SECONDS / 2:
                    return
            time.sleep(0.1)
        raise TimeoutError("no training process is ready")

    def upload(self, rows: int) -> str:
        """Upload the first rows of the testbed's instructions; returns the dataset's id."""
        path = self.folder / "rows.jsonl"
        with (DATA_DIR / "instructions.jsonl").open() as file:
            path.write_text("".join(islice(file, rows)))
        return self.client.upload_dataset(path).id

    def finished(self, job_id: str) -> JobReply:
        """Wait for the end of a job.

        Raises:
            RuntimeError: it has failed.
        """
        *_, job = self.client.watch(job_id, interval=0.5)
        if job.status == "failed":
            raise RuntimeError(f"{job_id}: {job.error}")
        return job

    def await_event(self, job_id: str, wanted: Callable[[EventReply], bool]) -> EventReply:
        """The first event of a kind, as soon as it is there.

        Raises:
            TimeoutError: it does not come.
        """
        after, give_up = 0, time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            for event in self.client.events(job_id, after):
                after = event.id
                if wanted(event):
                    return event
            time.sleep(0.1)
        raise TimeoutError(f"{job_id} does not come that far")


@contextmanager
def own_service(env: Mapping[str, str] | None = None) -> Generator[Service]:
    """A service with a state of its own, for as long as the block runs."""
    with (
        tempfile.TemporaryDirectory(prefix="securetune-bench-") as folder,
        running(Path(folder, "state"), env={"DATABASE_URL": "", "REDIS_URL": "", **(env or {})}) as address,
        SecureTune(address.address, address.api_key) as client,
    ):
        yield Service(address, client, Path(folder))


def small_job(dataset: str, strategy: Strategy, *, steps: int) -> JobSpec:
    """A job on the testbed whose measuring takes as little as possible."""
    return JobSpec(
        base_model="testbed",
        dataset=dataset,
        strategy=strategy,
        training=TrainingSpec(steps=steps, batch_size=8, max_length=256),
        security=SecuritySpec(attacks=(Direct(),), max_prompts=4, max_new_tokens=8, measure_noise=False),
        quality=QualitySpec(max_rows=4),
    )
