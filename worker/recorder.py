"""What a worker writes about one attempt. Each call is one transaction, fenced by the attempt's number: a worker whose
claim is over writes nothing.

Covers: beats, and the ways in which an attempt ends. Not here: when to write (worker.supervisor).
Every call may raise `core.db.jobs.LeaseLost` (the claim is over) and `core.errors.Unavailable` (nothing was written).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.db import artifacts, jobs, records
from core.db.jobs import Claim
from core.db.session import Session, Sessions, transaction
from core.schemas.events import Figures, JobError, PipelineEvent, Progress, StatusChanged
from core.schemas.results import Outcome


@dataclass(frozen=True)
class News:
    """What the process has said since the last time."""

    progress: Progress | None
    events: Sequence[PipelineEvent]


@dataclass(frozen=True)
class Recorder:
    """Writes for one claim."""

    sessions: Sessions
    claim: Claim
    lease_seconds: float

    def beat(self, news: News) -> bool:
        """Renew the lease and record the news; True when the user wants the job cancelled."""
        with transaction(self.sessions) as session:
            return self._record(session, news)

    def succeed(self, news: News, outcome: Outcome) -> None:
        """The job is done: its files become known together with its status."""
        with transaction(self.sessions) as session:
            self._record(session, news)
            artifacts.put(session, self.claim.job_id, outcome.artifacts)
            jobs.finish(session, self.claim, "succeeded", gate=outcome.gate)
            self._say(session, StatusChanged(status="succeeded", message=_done(outcome)))

    def fail(self, news: News, error: JobError) -> None:
        """The job cannot be done."""
        with transaction(self.sessions) as session:
            self._record(session, news)
            jobs.finish(session, self.claim, "failed", error)
            self._say(session, StatusChanged(status="failed", message=error.message, code=error.code))

    def cancel(self, news: News) -> None:
        """The job was stopped because its user asked for it."""
        with transaction(self.sessions) as session:
            self._record(session, news)
            jobs.finish(session, self.claim, "cancelled")
            self._say(session, StatusChanged(status="cancelled", message="The job was cancelled."))

    def release(self, news: News) -> None:
        """The worker is asked to stop: the job goes on elsewhere. This counts as no failure."""
        with transaction(self.sessions) as session:
            self._record(session, news)
            jobs.release(session, self.claim, failed=False)
            message = "Its worker was shut down; the job waits for another."
            self._say(session, StatusChanged(status="interrupted", message=message, code="worker_stopped"))

    def interrupt(self, news: News, error: JobError, *, max_failures: int) -> bool:
        """The process has died: back into the queue, unless that was once too often. True when it is in the queue."""
        with transaction(self.sessions) as session:
            self._record(session, news)
            jobs.release(session, self.claim, failed=True, error=error)
            self._say(session, StatusChanged(status="interrupted", message=error.message, code=error.code))
            session.flush()
            end_hopeless(session, max_failures=max_failures)
            return jobs.get(session, self.claim.job_id).status == "queued"

    def _record(self, session: Session, news: News) -> bool:
        cancel = jobs.heartbeat(session, self.claim, lease_seconds=self.lease_seconds, progress=news.progress)
        for event in news.events:
            records.add_event(session, self.claim.job_id, self.claim.attempt, event)
        figures = [figure for event in news.events if isinstance(event, Figures) for figure in event.figures]
        records.put_figures(session, self.claim.job_id, figures)
        return cancel

    def _say(self, session: Session, event: StatusChanged) -> None:
        records.add_event(session, self.claim.job_id, self.claim.attempt, event)


def _done(outcome: Outcome) -> str:
    if outcome.gate is None or outcome.gate.outcome == "released":
        return "The job is done."
    return f"The job is done, and the gate withholds what it trained: {outcome.gate.outcome}."


def end_hopeless(session: Session, *, max_failures: int) -> int:
    """End jobs that no worker will, with an event each. Returns how many."""
    ended = jobs.end_hopeless(session, max_failures=max_failures)
    for job in ended:
        if job.status == "cancelled":
            event = StatusChanged(status="cancelled", message="The job was cancelled while its worker was away.")
        else:
            error = JobError.model_validate(job.error)
            event = StatusChanged(status="failed", message=error.message, code=error.code)
        records.add_event(session, job.id, job.attempt, event)
    return len(ended)
