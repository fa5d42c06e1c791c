"""The Celery app and its only message, which notifies workers of a job. The API and the worker share it.

A message contains only a job's id. It may be lost, duplicated or late, because the job's row decides (core.db.jobs).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError

from core.errors import Unavailable

RUN_JOB = "securetune.run_job"
QUEUE = "securetune"


def app(redis_url: str) -> Celery:
    """A Celery app that fails within 2 s if the broker cannot be reached, and stores no results."""
    celery = Celery("securetune", broker=redis_url)
    celery.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        task_publish_retry=False,
        # A busy worker takes no message. Limiting unacknowledged messages would have the same effect, but a message
        # whose acknowledgement is lost with the broker would count forever, and block its worker.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=0,
        worker_enable_prefetch_count_reduction=False,
        # Only affects late acknowledgement; False makes Celery warn whenever the broker comes back.
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
    """Notify a worker of a job. Call it after the commit.

    Raises:
        Unavailable: code `broker_unavailable`. The job is not lost: the sweep sends it again.
    """
    with _reachable():
        celery.send_task(RUN_JOB, args=(job_id,), retry=False)


def depth(celery: Celery) -> int:
    """Number of waiting messages.

    Raises:
        Unavailable: code `broker_unavailable`.
    """
    with _reachable(), celery.connection_for_write() as connection:
        channel = connection.default_channel
        return int(channel.queue_declare(QUEUE, passive=False, durable=True).message_count)


@contextmanager
def _reachable() -> Iterator[None]:
    from redis.exceptions import RedisError  # noqa: PLC0415 - loads all of redis, which would slow down the start of the API

    try:
        yield
    except (BrokerError, RedisError, OSError) as error:
        raise Unavailable(
            "The message broker cannot be reached. Check REDIS_URL, and that Redis or Valkey is running.",
            code="broker_unavailable",
        ) from error
