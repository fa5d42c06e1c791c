"""The way of a job's row: claims, leases, fences, ends. With threads where threads matter."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func

from core.db import jobs
from core.db.jobs import Claim, LeaseLost
from core.db.models import Job
from core.db.rows import newest_first
from core.db.session import Sessions, transaction
from core.errors import Conflict, InvalidInput, NotFound
from core.schemas.events import JobError, Progress
from core.schemas.job import JobSpec

LEASE = 60.0
NOBODY = "job_" + "0" * 24
DIED = JobError(code="process_died", message="The training process died of SIGSEGV.")


@pytest.fixture
def job_id(sessions: Sessions, spec: JobSpec) -> str:
    with transaction(sessions) as session:
        return jobs.add(session, spec).id


def claim(sessions: Sessions, job_id: str, owner: str = "worker") -> Claim | None:
    """Claim in a transaction of its own."""
    with transaction(sessions) as session:
        return jobs.claim(session, job_id, owner=owner, lease_seconds=LEASE)


def claimed(sessions: Sessions, job_id: str) -> Claim:
    """A claim that is granted."""
    got = claim(sessions, job_id)
    assert got is not None
    return got


def expire(sessions: Sessions, job_id: str) -> None:
    """As if its worker had been silent for too long."""
    with transaction(sessions) as session:
        jobs.get(session, job_id).lease_expires_at = func.clock_timestamp() - timedelta(seconds=1)


def row(sessions: Sessions, job_id: str) -> Job:
    """The row as it is."""
    with transaction(sessions) as session:
        return jobs.get(session, job_id)


def test_a_new_job_waits(sessions: Sessions, spec: JobSpec, job_id: str) -> None:
    job = row(sessions, job_id)
    assert (job.status, job.attempt, job.failures) == ("queued", 0, 0)
    assert JobSpec.model_validate(job.spec) == spec
    assert job.created_at.tzinfo is not None
    with transaction(sessions) as session:
        assert jobs.claimable(session) == [job_id]


def test_no_such_job(sessions: Sessions) -> None:
    with transaction(sessions) as session, pytest.raises(NotFound):
        jobs.get(session, NOBODY)
    with transaction(sessions) as session, pytest.raises(NotFound):
        jobs.request_cancel(session, NOBODY)
    assert claim(sessions, NOBODY) is None


def test_pages_are_newest_first_and_miss_nothing(sessions: Sessions, spec: JobSpec) -> None:
    with transaction(sessions) as session:  # one transaction: all have the same created_at, so the id decides
        ids = [jobs.add(session, spec).id for _job in range(5)]
    ids += [_added(sessions, spec) for _job in range(3)]
    seen: list[str] = []
    after = None
    for more in (True, True, False):
        with transaction(sessions) as session:
            page, there_is_more = newest_first(session, Job, limit=3, after=after)
        assert there_is_more == more
        seen += [job.id for job in page]
        after = seen[-1]
    assert seen == [*reversed(ids[5:]), *sorted(ids[:5], reverse=True)]
    with transaction(sessions) as session, pytest.raises(InvalidInput) as caught:
        newest_first(session, Job, limit=3, after=NOBODY)
    assert caught.value.code == "unknown_cursor"


def _added(sessions: Sessions, spec: JobSpec) -> str:
    with transaction(sessions) as session:
        return jobs.add(session, spec).id


def test_of_many_workers_one_gets_each_job(sessions: Sessions, spec: JobSpec) -> None:
    with transaction(sessions) as session:
        ids = [jobs.add(session, spec).id for _job in range(20)]
    with ThreadPoolExecutor(8) as pool:
        claims = [done.result() for done in [pool.submit(claim, sessions, job_id) for job_id in ids * 8]]
    granted = [each for each in claims if each is not None]
    assert sorted(each.job_id for each in granted) == sorted(ids)
    assert {each.attempt for each in granted} == {1}


def test_of_many_workers_one_gets_a_job_whose_lease_ran_out(sessions: Sessions, job_id: str) -> None:
    first = claimed(sessions, job_id)
    expire(sessions, job_id)
    with ThreadPoolExecutor(8) as pool:
        claims = [done.result() for done in [pool.submit(claim, sessions, job_id, f"w{n}") for n in range(16)]]
    (second,) = [each for each in claims if each is not None]
    assert (first.attempt, second.attempt) == (1, 2)
    assert row(sessions, job_id).failures == 1


def test_a_claim_holds_while_its_lease_does(sessions: Sessions, job_id: str) -> None:
    claimed(sessions, job_id)
    assert claim(sessions, job_id, "another") is None
    job = row(sessions, job_id)
    assert (job.status, job.lease_owner, job.attempt, job.failures) == ("running", "worker", 1, 0)
    with transaction(sessions) as session:
        assert jobs.claimable(session) == []


def test_a_heartbeat_renews_even_an_expired_lease(sessions: Sessions, job_id: str) -> None:
    mine = claimed(sessions, job_id)
    expire(sessions, job_id)
    progress = Progress(stage="training", fraction=0.5, message="step 1 of 2")
    with transaction(sessions) as session:
        assert jobs.heartbeat(session, mine, lease_seconds=LEASE, progress=progress) is False
    assert claim(sessions, job_id, "another") is None
    assert row(sessions, job_id).progress == progress.model_dump()
    with transaction(sessions) as session:
        jobs.heartbeat(session, mine, lease_seconds=LEASE, progress=None)
    assert row(sessions, job_id).progress == progress.model_dump()


WRITES: dict[str, Callable[[Sessions, Claim], None]] = {}


def write(name: str) -> Callable[[Callable[[Sessions, Claim], None]], Callable[[Sessions, Claim], None]]:
    """Note a way to write with a claim."""

    def note(function: Callable[[Sessions, Claim], None]) -> Callable[[Sessions, Claim], None]:
        WRITES[name] = function
        return function

    return note


@write("heartbeat")
def _heartbeat(sessions: Sessions, claim: Claim) -> None:
    with transaction(sessions) as session:
        jobs.heartbeat(session, claim, lease_seconds=LEASE, progress=None)


@write("release")
def _give_back(sessions: Sessions, claim: Claim) -> None:
    with transaction(sessions) as session:
        jobs.release(session, claim, failed=True, error=DIED)


@write("finish")
def _finish(sessions: Sessions, claim: Claim) -> None:
    with transaction(sessions) as session:
        jobs.finish(session, claim, "succeeded")


@pytest.mark.parametrize("name", WRITES)
def test_a_late_worker_writes_nothing(sessions: Sessions, job_id: str, name: str) -> None:
    late = claimed(sessions, job_id)
    expire(sessions, job_id)
    claimed(sessions, job_id)
    before = row(sessions, job_id)
    with pytest.raises(LeaseLost):
        WRITES[name](sessions, late)
    after = row(sessions, job_id)
    columns = Job.__table__.columns.keys()
    assert [getattr(after, column) for column in columns] == [getattr(before, column) for column in columns]


@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_written_to_a_job_that_has_ended(sessions: Sessions, job_id: str, name: str) -> None:
    mine = claimed(sessions, job_id)
    _finish(sessions, mine)
    with pytest.raises(LeaseLost):
        WRITES[name](sessions, mine)
    assert claim(sessions, job_id) is None


def test_a_job_ends_with_its_error(sessions: Sessions, job_id: str) -> None:
    mine = claimed(sessions, job_id)
    with transaction(sessions) as session, pytest.raises(ValueError, match="queued"):
        jobs.finish(session, mine, "queued")
    with transaction(sessions) as session:
        jobs.finish(session, mine, "failed", DIED)
    job = row(sessions, job_id)
    assert (job.status, job.error, job.lease_owner, job.lease_expires_at) == ("failed", DIED.model_dump(), None, None)
    assert job.finished_at is not None


@pytest.mark.parametrize("failed", [True, False])
def test_a_job_given_back_can_be_claimed_again(sessions: Sessions, job_id: str, failed: bool) -> None:
    mine = claimed(sessions, job_id)
    with transaction(sessions) as session:
        jobs.release(session, mine, failed=failed, error=DIED if failed else None)
    job = row(sessions, job_id)
    assert (job.status, job.failures, job.lease_owner) == ("queued", int(failed), None)
    assert job.error == (DIED.model_dump() if failed else None)
    again = claimed(sessions, job_id)
    assert again.attempt == 2
    with transaction(sessions) as session:
        jobs.finish(session, again, "succeeded")
    job = row(sessions, job_id)
    assert (job.status, job.error, job.failures) == ("succeeded", None, int(failed))


def test_a_cancel_of_a_waiting_job_ends_it(sessions: Sessions, job_id: str) -> None:
    for _time in range(2):
        with transaction(sessions) as session:
            job = jobs.request_cancel(session, job_id)
        assert job.status == "cancelled"
        assert job.finished_at is not None
    assert claim(sessions, job_id) is None


def test_a_cancel_of_a_running_job_reaches_its_worker(sessions: Sessions, job_id: str) -> None:
    mine = claimed(sessions, job_id)
    with transaction(sessions) as session:
        first = jobs.request_cancel(session, job_id).cancel_requested_at
    with transaction(sessions) as session:
        assert jobs.request_cancel(session, job_id).cancel_requested_at == first
    with transaction(sessions) as session:
        assert jobs.heartbeat(session, mine, lease_seconds=LEASE, progress=None) is True
    with transaction(sessions) as session:
        jobs.finish(session, mine, "cancelled")
    with transaction(sessions) as session:
        assert jobs.request_cancel(session, job_id).status == "cancelled"


def test_what_has_ended_cannot_be_cancelled(sessions: Sessions, job_id: str) -> None:
    _finish(sessions, claimed(sessions, job_id))
    with transaction(sessions) as session, pytest.raises(Conflict) as caught:
        jobs.request_cancel(session, job_id)
    assert caught.value.code == "job_ended"


def test_cancel_and_claim_at_once_agree(sessions: Sessions, spec: JobSpec) -> None:
    """Whichever is first: a job is either cancelled and unclaimed, or claimed and asked to stop."""

    def cancel(job_id: str) -> None:
        with transaction(sessions) as session:
            jobs.request_cancel(session, job_id)

    with transaction(sessions) as session:
        ids = [jobs.add(session, spec).id for _job in range(20)]
    with ThreadPoolExecutor(8) as pool:
        claims = [pool.submit(claim, sessions, job_id) for job_id in ids]
        cancels = [pool.submit(cancel, job_id) for job_id in ids]
        for each in cancels:
            each.result()
    for job_id, got in zip(ids, claims, strict=True):
        job = row(sessions, job_id)
        assert job.cancel_requested_at is not None
        assert job.status == ("cancelled" if got.result() is None else "running")


def test_hopeless_jobs_are_ended(sessions: Sessions, spec: JobSpec) -> None:
    ids = {name: _added(sessions, spec) for name in ("waits", "runs", "cancelled", "worn", "silent")}
    for name in ("runs", "cancelled"):
        claimed(sessions, ids[name])
    with transaction(sessions) as session:
        jobs.request_cancel(session, ids["cancelled"])
    expire(sessions, ids["cancelled"])
    for _time in range(2):
        mine = claimed(sessions, ids["worn"])
        with transaction(sessions) as session:
            jobs.release(session, mine, failed=True, error=DIED)
    for _time in range(2):
        claimed(sessions, ids["silent"])
        expire(sessions, ids["silent"])

    with transaction(sessions) as session:
        ended = {job.id for job in jobs.end_hopeless(session, max_failures=2)}
    assert ended == {ids["cancelled"], ids["worn"], ids["silent"]}
    assert {name: row(sessions, job_id).status for name, job_id in ids.items()} == {
        "waits": "queued",
        "runs": "running",
        "cancelled": "cancelled",
        "worn": "failed",
        "silent": "failed",
    }
    worn, silent = row(sessions, ids["worn"]).error, row(sessions, ids["silent"]).error
    assert worn is not None
    assert silent is not None
    assert worn["code"] == silent["code"] == "interrupted_too_often"
    assert "2 times" in worn["message"]
    assert DIED.message in worn["message"]
    assert "2 times" in silent["message"]
    with transaction(sessions) as session:
        assert jobs.end_hopeless(session, max_failures=2) == []


def test_the_sweep_does_not_wait_for_a_row_in_use(sessions: Sessions, job_id: str) -> None:
    claimed(sessions, job_id)
    expire(sessions, job_id)
    with transaction(sessions) as busy:
        jobs.get(busy, job_id)
        jobs.request_cancel(busy, job_id)
        with transaction(sessions) as session:
            assert jobs.end_hopeless(session, max_failures=1) == []


def test_the_oldest_claimable_come_first(sessions: Sessions, spec: JobSpec) -> None:
    ids = [_added(sessions, spec) for _job in range(4)]
    claimed(sessions, ids[0])
    expire(sessions, ids[0])
    claimed(sessions, ids[1])
    with transaction(sessions) as session:
        assert jobs.claimable(session) == [ids[0], *ids[2:]]
        assert jobs.claimable(session, limit=2) == [ids[0], ids[2]]
