"""What the tests of the worker share: jobs in a real database, a supervisor, real Celery workers, and patience.

Not here: fixtures (tests/worker/conftest.py), the training process's script (tests/worker/scripted.py).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from core import catalog
from core.config import Settings
from core.db import artifacts, datasets, jobs, records
from core.db.models import Artifact, Dataset, Event, Job
from core.db.rows import add_upload
from core.db.session import Sessions, transaction
from core.schemas.data import DatasetSummary
from core.schemas.evaluation import Figure
from core.schemas.job import Assignment, DatasetRef
from tests.worker.scripted import spec
from worker.pool import WarmPool
from worker.protocol import Order
from worker.supervisor import Supervisor

SCRIPTED = (sys.executable, "-m", "tests.worker.scripted")
ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object], what: str, *, seconds: float = 40) -> float:
    """Wait until something is so, looking often; returns how long it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


SUMMARY = DatasetSummary(
    file_format="jsonl",
    row_format="messages",
    rows=2,
    turns=4,
    assistant_turns=2,
    characters=40,
    longest_row_characters=20,
)
DATASET = DatasetRef(id="ds_" + "0" * 24, key="uploads/d", sha256="0" * 64, columns=None, summary=SUMMARY)


def order(store: Path = Path("/srv/artifacts")) -> Order:
    """An order as a supervisor makes it."""
    return Order(
        assignment=Assignment(
            job_id="job_" + "a" * 24, attempt=2, spec=spec(DATASET.id, "finish"), dataset=DATASET, validation=None
        ),
        model=catalog.TESTBED,
        store=store,
        device="auto",
        threads=0,
        vllm_python=None,
    )


class Service:
    """The database and the store, as a test sees them."""

    def __init__(self, sessions: Sessions, state: Path) -> None:
        self.sessions = sessions
        self.state = state
        self.store = state / "artifacts"
        with transaction(sessions) as session:
            row, _ = add_upload(
                session,
                Dataset,
                id=datasets.identity("0" * 64, None),
                name="d.jsonl",
                sha256="0" * 64,
                bytes=40,
                key="uploads/d",
                columns=None,
                summary=SUMMARY.model_dump(),
            )
            self.dataset = row.id

    def order(self, *script: str) -> str:
        """Queue a job without telling anybody."""
        with transaction(self.sessions) as session:
            return jobs.add(session, spec(self.dataset, *script)).id

    def job(self, job_id: str) -> Job:
        """The row as it is now."""
        with transaction(self.sessions) as session:
            return jobs.get(session, job_id)

    def status(self, job_id: str) -> str:
        """Its status."""
        return self.job(job_id).status

    def ended(self, job_id: str) -> bool:
        """Whether it has ended."""
        return self.status(job_id) not in {"queued", "running"}

    def cancel(self, job_id: str) -> None:
        """As the API does."""
        with transaction(self.sessions) as session:
            jobs.request_cancel(session, job_id)

    def events(self, job_id: str) -> list[Event]:
        """All of them."""
        with transaction(self.sessions) as session:
            return list(records.events(session, job_id, after=0, limit=100_000)[0])

    def statuses(self, job_id: str) -> list[str]:
        """What its status events say, in order."""
        return [event.data["status"] for event in self.events(job_id) if event.type == "status"]

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Its files."""
        with transaction(self.sessions) as session:
            return list(artifacts.of_job(session, job_id))

    def figures(self, job_id: str) -> list[Figure]:
        """Its figures."""
        with transaction(self.sessions) as session:
            return records.figures(session, job_id)

    def pid(self, attempt: int = 1, *, seconds: float = 40) -> int:
        """The training process of an attempt, once it is at work."""
        path = self.store / f"pid-{attempt}"
        until(path.exists, f"attempt {attempt} begins", seconds=seconds)
        return int(path.read_text())

    def release(self) -> None:
        """Let scripts that wait go on."""
        self.store.mkdir(parents=True, exist_ok=True)
        (self.store / "release").touch()


class Desk:
    """A supervisor in this process, with what it sent."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.sent: list[str] = []
        self.pool = WarmPool(SCRIPTED)
        self.supervisor = Supervisor(settings, sessions=sessions, pool=self.pool, send=self.sent.append)

    @contextmanager
    def running(self, job_id: str) -> Generator[threading.Thread]:
        """At work on a job, in a thread; it must have come back by the end."""
        thread = threading.Thread(target=self.supervisor.run, args=(job_id,))
        thread.start()
        try:
            yield thread
            thread.join(15)
            assert not thread.is_alive()
        finally:
            self.supervisor.shut_down()
            thread.join(15)


class CeleryWorker:
    """A real worker process, in a session of its own."""

    def __init__(self, database_url: str, redis_url: str, state: Path, name: str, **more: str) -> None:
        self.log = state / f"{name}.log"
        environment = os.environ | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "SECURETUNE_STATE": str(state),
            "SECURETUNE_LEASE_SECONDS": "1.5",
            "SECURETUNE_HEARTBEAT_SECONDS": "0.2",
            "SECURETUNE_SWEEP_SECONDS": "0.4",
            "SECURETUNE_CANCEL_GRACE_SECONDS": "0.5",
            "SECURETUNE_A_SECRET": "not for the training process",
            "PYTHONWARNINGS": "",
        }
        app = more.pop("app", "tests.worker.scripted_app")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    app,
                    "worker",
                    "--pool",
                    "threads",
                    "--concurrency",
                    "1",
                    "--without-mingle",
                    "--without-gossip",
                    "--without-heartbeat",
                ],
                env=environment | more,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def says(self, text: str) -> bool:
        """Whether its log holds this."""
        return text in self.log.read_text(errors="replace")

    def ready(self) -> "CeleryWorker":
        """Wait until it takes messages."""
        until(lambda: self.says(" ready.") or self.process.poll() is not None, "the worker is ready", seconds=60)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def terminate(self, *, seconds: float = 40) -> None:
        """Ask it to stop, as a container engine does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)


StartWorker = Callable[..., CeleryWorker]
