"""What is lost is found: sent again, or ended."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import func

from core.config import Settings
from core.db import jobs, records
from core.db.session import Sessions, dispose, transaction
from core.db.session import sessions as make_sessions
from core.errors import Unavailable
from tests.worker.helpers import Service, until
from worker.sweep import Sweep


class Broker:
    """A queue that nobody reads."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.waiting = 0
        self.away = False
        self.looks = 0

    def depth(self) -> int:
        """How many wait."""
        self.looks += 1
        if self.away:
            raise Unavailable("The message broker cannot be reached.", code="broker_unavailable")
        return self.waiting

    def send(self, job_id: str) -> None:
        """Take one."""
        if self.away:
            raise Unavailable("The message broker cannot be reached.", code="broker_unavailable")
        self.sent.append(job_id)
        self.waiting += 1


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def sweep(settings: Settings, sessions: Sessions, broker: Broker) -> Iterator[Sweep]:
    sweep = Sweep(settings, sessions=sessions, depth=broker.depth, send=broker.send)
    yield sweep
    sweep.stop()
    sweep.wait()


def silent(service: Service) -> str:
    """A job whose worker has died."""
    job_id = service.order("finish")
    with transaction(service.sessions) as session:
        jobs.claim(session, job_id, owner="dead", lease_seconds=60)
        session.flush()
        jobs.get(session, job_id).lease_expires_at = func.clock_timestamp() - timedelta(seconds=1)
    return job_id


def test_what_waits_and_what_is_silent_is_sent_once(sweep: Sweep, broker: Broker, service: Service) -> None:
    ids = [service.order("finish"), silent(service)]
    running = service.order("finish")
    with transaction(service.sessions) as session:
        jobs.claim(session, running, owner="alive", lease_seconds=60)
    assert sweep.once() == 2
    assert broker.sent == ids
    assert sweep.once() == 0, "while messages wait, none is added"
    broker.waiting = 0
    assert sweep.once() == 2


def test_nothing_to_do_asks_no_broker(sweep: Sweep, broker: Broker, service: Service) -> None:
    broker.away = True
    assert sweep.once() == 0


def test_what_no_worker_will_end_is_ended_with_an_event(sweep: Sweep, broker: Broker, service: Service) -> None:
    cancelled, worn = silent(service), silent(service)
    with transaction(service.sessions) as session:
        jobs.request_cancel(session, cancelled)
        jobs.get(session, worn).failures = 2
    assert sweep.once() == 0
    assert service.status(cancelled) == "cancelled"
    assert service.statuses(cancelled) == ["cancelled"]
    assert service.status(worn) == "failed"
    (event,) = service.events(worn)
    assert (event.data["status"], event.data["code"]) == ("failed", "interrupted_too_often")


def test_one_sweeps_at_a_time(sweep: Sweep, broker: Broker, service: Service) -> None:
    service.order("finish")
    with transaction(service.sessions) as other:
        assert records.try_sweep_lock(other)
        assert sweep.once() == 0
    assert sweep.once() == 1


def test_it_survives_outages_and_says_so_once(
    sweep: Sweep, broker: Broker, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    broker.away = True
    job_id = service.order("finish")
    sweep.start()
    until(lambda: "sweeping is suspended" in caplog.text, "the outage is noticed")
    looks = broker.looks
    until(lambda: broker.looks >= looks + 3, "it looks again and again")
    broker.away = False
    until(lambda: broker.sent == [job_id], "the job is sent")
    assert caplog.text.count("sweeping is suspended") == 1


def test_a_database_that_is_away_at_the_start(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = make_sessions("postgresql://nobody@/nothing?host=/nonexistent")
    sweep = Sweep(settings, sessions=nowhere, depth=lambda: 0, send=lambda _: None)
    sweep.start()
    until(lambda: "sweeping is suspended" in caplog.text, "the outage is noticed")
    sweep.stop()
    sweep.wait()
    dispose(nowhere)
