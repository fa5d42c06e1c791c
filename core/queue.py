"""The Celery app and the one message there is: look at this job. Both doors share it and so never import each other.

A message carries a job's id and nothing else. It may be lost, doubled or late: the job's row decides (core.db.jobs).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError

from core.errors import Unavailable

RUN_JOB = "securetune.run_job"
QUEUE = "securetune"


def app(redis_url: str) -> Celery:
    """A Celery app that fails fast: a broker that is away costs a sender 2 s at most, and no result is stored."""
    celery = Celery("securetune", broker=redis_url)
    celery.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        task_publish_retry=False,
        # A busy worker takes no message. Counting what is unacknowledged would do the same, but a message whose
        # acknowledgement is lost with the broker would count for ever, and its worker would never hear again.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=0,
        worker_enable_prefetch_count_reduction=False,
        # Concerns late acknowledgement only; False makes Celery warn each time that the broker comes back.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 2,
            "socket_connect_timeout": 2,
            "max_retries": 0,
            "visibility_timeout": 3600,
        },
    )
    return celery


def send(celery: Celery, job_id: str) -> None:
    """Wake a worker up for a job. Call it after the commit.

    Raises:
        Unavailable: code `broker_unavailable`. The job is safe in its row: the sweep will send it again.
    """
    with _reachable():
        celery.send_task(RUN_JOB, args=(job_id,), retry=False)


def depth(celery: Celery) -> int:
    """How many messages wait.

    Raises:
        Unavailable: code `broker_unavailable`.
    """
    with _reachable(), celery.connection_for_write() as connection:
        channel = connection.default_channel
        return int(channel.queue_declare(QUEUE, passive=False, durable=True).message_count)


@contextmanager
def _reachable() -> Iterator[None]:
    from redis.exceptions import RedisError  # noqa: PLC0415 - loads all of redis, which the API need not wait for

    try:
        yield
    except (BrokerError, RedisError, OSError) as error:
        raise Unavailable("The message broker cannot be reached.", code="broker_unavailable") from error
