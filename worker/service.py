"""The parts of a worker, and what happens when it starts and stops.

Not here: running a job (worker.supervisor), finding lost jobs (worker.sweep).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

from celery import Celery, bootsteps, signals
from typing_extensions import override

from core import queue
from core.config import Settings
from core.db.session import dispose, sessions
from core.errors import Unavailable
from core.signing import SigningKeys
from core.storage import ArtifactStore
from worker import logs
from worker.child import TRAINING
from worker.pool import WarmPool
from worker.supervisor import Supervisor
from worker.sweep import Sweep

_LOOK_SECONDS = 0.1


class _Pool(Protocol):
    num_processes: int


class _Timer(Protocol):
    def call_repeatedly(self, secs: float, fun: Callable[[], None]) -> object: ...


class _Consumer(Protocol):
    pool: _Pool
    timer: _Timer


class _FrequentPolling(bootsteps.StartStopStep):
    """Makes Celery poll for messages sooner than a second after a job ends, which matters for many short jobs.

    It is a step because a lost connection clears the timer and then restarts all steps.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    @override
    def start(self, parent: _Consumer) -> None:
        # The call does nothing; the timer makes the event loop check for messages.
        parent.timer.call_repeatedly(_LOOK_SECONDS, lambda: None)


def create(config: Settings, command: Sequence[str] = TRAINING) -> Celery:
    """Create a Celery app that runs jobs with `command`.

    Raises:
        Unavailable: code `not_configured`.
    """
    database_url, redis_url = config.database_url.get_secret_value(), config.redis_url.get_secret_value()
    for name, value in (("DATABASE_URL", database_url), ("REDIS_URL", redis_url)):
        if not value:
            raise Unavailable(
                f"{name} is not set. Set it, or run `securetune up`, which starts PostgreSQL and Valkey.",
                code="not_configured",
            )
    celery = queue.app(redis_url)
    celery.conf.update(worker_pool="threads", worker_concurrency=1, worker_enable_remote_control=False)
    cast(dict[str, set[type]], celery.steps)["consumer"].add(_FrequentPolling)  # typed as None by Celery
    factory = sessions(database_url)
    pool = WarmPool(command)
    send = partial(queue.send, celery)
    supervisor = Supervisor(config, sessions=factory, pool=pool, send=send)
    sweep = Sweep(config, sessions=factory, depth=partial(queue.depth, celery), send=send)

    @celery.task(name=queue.RUN_JOB)
    def run_job(job_id: str) -> None:
        supervisor.run(job_id)

    def start(sender: _Consumer, **_: object) -> None:
        for _slot in range(sender.pool.num_processes):
            pool.add()
        ArtifactStore(config.artifacts).clean()
        with SigningKeys(config.signing, config.signing_key).signer():
            pass  # create the key or fail now, and not after a job has been computed
        logs.clean(config.state / "logs")
        sweep.start()

    def begin_shutdown(**_: object) -> None:
        supervisor.shut_down()
        sweep.stop()

    def end(**_: object) -> None:
        pool.close()
        sweep.wait()
        dispose(factory)

    signals.setup_logging.connect(logs.configure)
    signals.worker_ready.connect(start, weak=False)
    signals.worker_shutting_down.connect(begin_shutdown, weak=False)
    signals.worker_shutdown.connect(end, weak=False)
    return celery
