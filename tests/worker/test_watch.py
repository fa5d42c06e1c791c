"""Watching a training process: what it says is seen in time, and what does not stop is made to."""

import os
import signal

import pytest

from core.config import Settings
from core.db.session import Sessions
from tests.worker.helpers import Desk, Service, alive, until
from tests.worker.scripted import figure


def test_progress_and_stages_are_seen_while_it_runs(desk: Desk, service: Service) -> None:
    job_id = service.order("wait")
    with desk.running(job_id):
        service.pid()
        until(lambda: any(event.type == "stage_started" for event in service.events(job_id)), "the stage", seconds=2)
        until(lambda: service.job(job_id).progress, "progress is recorded", seconds=2)
        assert service.status(job_id) == "running"
        service.release()
    assert service.status(job_id) == "succeeded"


def test_a_broken_protocol_fails_the_job(desk: Desk, service: Service) -> None:
    job_id = service.order("garbage")
    desk.supervisor.run(job_id)
    job = service.job(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "protocol_error"


@pytest.mark.parametrize("script", ["wait", "deaf"])
def test_a_cancel_takes_less_than_five_seconds(
    settings: Settings, sessions: Sessions, service: Service, script: str
) -> None:
    defaults = Settings()
    pace = {name: getattr(defaults, name) for name in ("heartbeat_seconds", "cancel_grace_seconds")}
    desk = Desk(settings.model_copy(update=pace), sessions)
    job_id = service.order(script)
    with desk.running(job_id):
        pid = service.pid()
        service.cancel(job_id)
        assert until(lambda: service.status(job_id) == "cancelled", "cancelled", seconds=5) < 5
        assert not alive(pid)
    desk.pool.close()
    assert service.statuses(job_id) == ["running", "cancelled"]
    assert service.job(job_id).failures == 0
    assert desk.sent == []


def test_what_a_process_has_started_goes_with_it(desk: Desk, service: Service) -> None:
    job_id = service.order("family")
    with desk.running(job_id):
        leader = service.pid()
        grandchild = int((service.store / "grandchild").read_text())
        assert alive(grandchild)
        os.kill(leader, signal.SIGKILL)
        until(lambda: not alive(grandchild), "the grandchild is gone", seconds=10)


def test_prints_go_to_the_log_and_not_into_the_protocol(desk: Desk, service: Service) -> None:
    job_id = service.order("print")
    desk.supervisor.run(job_id)
    assert service.status(job_id) == "succeeded"
    log = (service.state / "logs" / f"{job_id}-1.log").read_text()
    assert "a line for the log\nanother line\n" in log


def test_more_than_any_buffer_is_recorded_in_order(desk: Desk, service: Service) -> None:
    job_id = service.order("flood")
    desk.supervisor.run(job_id)
    steps = [event.data["step"] for event in service.events(job_id) if event.type == "metrics"]
    assert steps == [*range(1, 6001), 1, 2, 3]


def test_of_two_figures_with_one_name_the_later_counts(desk: Desk, service: Service) -> None:
    job_id = service.order("twice")
    desk.supervisor.run(job_id)
    assert service.figures(job_id) == [figure(0.25)]
