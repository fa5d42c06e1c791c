"""Placing, cancelling and assigning jobs without HTTP."""

import logging

import pytest

from core.catalog import TESTBED, Catalog
from core.db import jobs, policies, records
from core.db.jobs import Claim
from core.db.session import Sessions, transaction
from core.errors import Conflict, InvalidInput, InvalidModel, NotFound, Unavailable
from core.orders import assign, cancel, place
from core.schemas.job import Assignment, JobSpec
from core.schemas.keys import Caller
from core.schemas.policy import Policy, RateRule
from tests.core.orders.conftest import LISTED


def events(sessions: Sessions, job_id: str) -> list[str]:
    """Statuses of the job's events."""
    with transaction(sessions) as session:
        return [row.data["status"] for row in records.events(session, job_id, after=0, limit=100)[0]]


def test_a_job_is_sent_once_it_is_committed(sessions: Sessions, spec: JobSpec, caller: Caller) -> None:
    seen: list[str] = []

    def send(job_id: str) -> None:
        with transaction(sessions) as session:  # another connection finds the row
            seen.append(jobs.get(session, job_id).status)

    job = place(sessions, LISTED, caller, spec, send=send)
    assert seen == ["queued"]
    assert (job.project, job.spec["training"]["learning_rate"]) == ("team-a", TESTBED.learning_rate)
    assert events(sessions, job.id) == ["queued"]


def test_a_broker_that_is_away_is_logged_and_the_job_stays_queued(
    sessions: Sessions, spec: JobSpec, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    def send(job_id: str) -> None:
        raise Unavailable("The message broker cannot be reached.", code="broker_unavailable")

    with caplog.at_level(logging.WARNING):
        job = place(sessions, LISTED, caller, spec, send=send)
    assert f"{job.id} is queued, but no worker was notified" in caplog.text
    with transaction(sessions) as session:
        assert jobs.claimable(session) == [job.id]


def test_an_invalid_order_leaves_no_job_and_sends_nothing(sessions: Sessions, spec: JobSpec, caller: Caller) -> None:
    sent: list[str] = []
    missing = spec.model_copy(update={"dataset": "ds_" + "0" * 24})
    validation = spec.model_copy(update={"validation_dataset": "ds_" + "1" * 24})
    for order, param in ((missing, "dataset"), (validation, "validation_dataset")):
        with pytest.raises(NotFound) as caught:
            place(sessions, LISTED, caller, order, send=sent.append)
        assert caught.value.param == param
    with pytest.raises(InvalidModel):
        place(sessions, Catalog(), caller, spec, send=sent.append)
    with transaction(sessions) as session:
        strict = Policy(families={"prefill": RateRule(max_rate=0.1), "best_of_n": RateRule(max_rate=0.1)})
        policies.add(session, "team-a", strict, key_id=caller.key_id)
    with pytest.raises(InvalidInput) as needs_more:
        place(sessions, LISTED, caller, spec, send=sent.append)
    assert needs_more.value.code == "policy_needs_more"
    with transaction(sessions) as session:
        assert (jobs.claimable(session), sent) == ([], [])


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_by_its_worker(
    sessions: Sessions, spec: JobSpec, caller: Caller
) -> None:
    queued, running = (place(sessions, LISTED, caller, spec, send=lambda _: None) for _ in range(2))
    claim_of(sessions, running.id)
    for _time in range(2):
        with transaction(sessions) as session:
            assert cancel(session, queued.id).status == "cancelled"
            assert cancel(session, running.id).status == "running"
    assert events(sessions, queued.id) == ["queued", "cancelled"]
    assert events(sessions, running.id) == ["queued", "cancelling"]


def test_a_job_that_has_ended_cannot_be_cancelled(sessions: Sessions, spec: JobSpec, caller: Caller) -> None:
    job = place(sessions, LISTED, caller, spec, send=lambda _: None)
    claim = claim_of(sessions, job.id)
    with transaction(sessions) as session:
        jobs.finish(session, claim, "succeeded")
    with transaction(sessions) as session, pytest.raises(Conflict) as caught:
        cancel(session, job.id)
    assert caught.value.code == "job_ended"


def claim_of(sessions: Sessions, job_id: str) -> Claim:
    with transaction(sessions) as session:
        claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
    assert claim is not None
    return claim


def test_an_assignment_has_everything_that_the_order_names(sessions: Sessions, spec: JobSpec, caller: Caller) -> None:
    job = place(sessions, LISTED, caller, spec, send=lambda _: None)
    claim = claim_of(sessions, job.id)
    with transaction(sessions) as session:
        assignment, model = assign(session, claim, LISTED)
    assert isinstance(assignment, Assignment)
    assert (assignment.job_id, assignment.attempt, assignment.dataset.id) == (job.id, 1, spec.dataset)
    assert (model, assignment.validation, assignment.judges) == (TESTBED, None, ())


def test_an_order_that_the_list_has_outgrown_is_not_assigned(sessions: Sessions, spec: JobSpec, caller: Caller) -> None:
    job = place(sessions, LISTED, caller, spec, send=lambda _: None)
    claim = claim_of(sessions, job.id)
    with transaction(sessions) as session, pytest.raises(InvalidModel) as gone:
        assign(session, claim, Catalog())
    assert gone.value.code == "model_not_allowed"
    with transaction(sessions) as session:
        jobs.get(session, job.id).spec = {"kind": "tune", "base_model": "testbed", "epochs": 3}
    with transaction(sessions) as session, pytest.raises(InvalidInput, match="Create the job again") as unreadable:
        assign(session, claim, LISTED)
    assert unreadable.value.code == "invalid_spec"
