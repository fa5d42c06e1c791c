"""A worker put together: its parts, and what happens when it starts and stops.

Not here: doing a job (worker.supervisor), what is lost (worker.sweep).
"""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from celery import Celery, bootsteps, signals
from typing_extensions import override

from core import queue
from core.config import Settings
from core.db.session import dispose, sessions
from core.errors import Unavailable
from core.signing import SigningKeys
from core.storage import ArtifactStore
from worker import logs, tasks
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


class _Attentive(bootsteps.StartStopStep):
    """Celery takes no message while a job runs, and looks again a second after it: too late for a row of short ones.

    A step, because a lost connection clears the timer and then starts all steps again.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    @override
    def start(self, parent: _Consumer) -> None:
        parent.timer.call_repeatedly(_LOOK_SECONDS, _look)


def _look() -> None:
    """Nothing to do: the event loop has gone round, and that is all."""


def create(config: Settings, command: Sequence[str] = TRAINING) -> Celery:
    """A Celery app that runs jobs with `command`.

    Raises:
        Unavailable: code `not_configured`.
    """
    database_url, redis_url = config.database_url.get_secret_value(), config.redis_url.get_secret_value()
    for name, value in (("DATABASE_URL", database_url), ("REDIS_URL", redis_url)):
        if not value:
            raise Unavailable(
                f"{name} is not set. A worker needs PostgreSQL and Redis: set it, or let `securetune up` start both.",
                code="not_configured",
            )
    celery = queue.app(redis_url)
    celery.conf.update(worker_pool="threads", worker_concurrency=1, worker_enable_remote_control=False)
    cast(dict[str, set[type]], celery.steps)["consumer"].add(_Attentive)  # Celery's types say None
    factory = sessions(database_url)
    pool = WarmPool(command)
    supervisor = Supervisor(config, sessions=factory, pool=pool, send=lambda job_id: queue.send(celery, job_id))
    sweep = Sweep(
        config, sessions=factory, depth=lambda: queue.depth(celery), send=lambda job_id: queue.send(celery, job_id)
    )
    tasks.register(celery, supervisor)

    def start(sender: _Consumer, **_: object) -> None:
        for _slot in range(sender.pool.num_processes):
            pool.add()
        ArtifactStore(config.artifacts).clean()
        with SigningKeys(config.signing, config.signing_key).signer():
            pass  # made now if need be: a key that cannot be used is told before a job has been computed
        logs.clean(config.state / "logs")
        sweep.start()

    def begin_shutdown(**_: object) -> None:
        supervisor.shut_down()
        sweep.stop()

    def end(**_: object) -> None:
        pool.close()
        sweep.wait()
        dispose(factory)

    signals.setup_logging.connect(_configure_logging)
    signals.worker_ready.connect(start, weak=False)
    signals.worker_shutting_down.connect(begin_shutdown, weak=False)
    signals.worker_shutdown.connect(end, weak=False)
    return celery


def _configure_logging(**_: object) -> None:
    logs.configure()
