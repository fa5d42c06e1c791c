"""What a worker writes about one attempt. Each call is one transaction, which checks that the claim is still valid.

Covers: heartbeats, and the ways in which an attempt ends. Not here: when to write (worker.supervisor).
Every call may raise `core.db.jobs.LeaseLost` (the claim is not valid) and `core.errors.Unavailable` (nothing was
written).
"""

from dataclasses import dataclass, field

from core.db import artifacts, gate, jobs, records, speeds, weights
from core.db.jobs import Claim
from core.db.session import Session, Sessions, transaction
from core.schemas.events import Figures, JobError, PipelineEvent, SpeedsMeasured, StatusChanged
from core.schemas.gate import GateDecision
from core.schemas.results import Outcome
from worker.child import TrainingProcess


@dataclass(frozen=True)
class Recorder:
    """Records one attempt. Every call also records the progress of the process, and the events in `pending`."""

    sessions: Sessions
    claim: Claim
    lease_seconds: float
    process: TrainingProcess
    pending: list[PipelineEvent] = field(default_factory=list)
    """Events that are not recorded yet."""

    def heartbeat(self) -> bool:
        """Renew the lease; returns whether the user has requested to cancel the job."""
        with transaction(self.sessions) as session:
            cancel = self._record(session)
        self.pending.clear()
        return cancel

    def succeed(self, outcome: Outcome) -> None:
        """Record success, with the files of the job."""
        with transaction(self.sessions) as session:
            self._record(session)
            artifacts.put(session, self.claim.job_id, outcome.artifacts)
            jobs.finish(session, self.claim, "succeeded", gate=outcome.gate)
            weights.add(session, self.claim.job_id, outcome.weights, own=outcome.gate.run if outcome.gate else None)
            decided = gate.standing(session, jobs.get(session, self.claim.job_id)).decision
            self._add_event(session, StatusChanged(status="succeeded", message=_success(decided)))

    def fail(self, error: JobError) -> None:
        """Record failure."""
        with transaction(self.sessions) as session:
            self._record(session)
            jobs.finish(session, self.claim, "failed", error)
            self._add_event(session, StatusChanged(status="failed", message=error.message, code=error.code))

    def cancel(self) -> None:
        """Record that the job was cancelled."""
        with transaction(self.sessions) as session:
            self._record(session)
            jobs.finish(session, self.claim, "cancelled")
            self._add_event(session, StatusChanged(status="cancelled", message="The job was cancelled."))

    def release(self) -> None:
        """Put the job back into the queue, because the worker shuts down. This does not count as a failure."""
        with transaction(self.sessions) as session:
            self._record(session)
            jobs.release(session, self.claim, failed=False)
            message = "The worker was shut down. The job waits for another worker."
            self._add_event(session, StatusChanged(status="interrupted", message=message, code="worker_stopped"))

    def interrupt(self, error: JobError, *, max_failures: int) -> bool:
        """Put the job back into the queue after a crash, or fail it after too many. Returns whether it is queued."""
        with transaction(self.sessions) as session:
            self._record(session)
            jobs.release(session, self.claim, failed=True, error=error)
            self._add_event(session, StatusChanged(status="interrupted", message=error.message, code=error.code))
            session.flush()
            end_hopeless(session, max_failures=max_failures)
            return jobs.get(session, self.claim.job_id).status == "queued"

    def _record(self, session: Session) -> bool:
        cancel = jobs.heartbeat(session, self.claim, lease_seconds=self.lease_seconds, progress=self.process.progress)
        for event in self.pending:
            records.add_event(session, self.claim.job_id, self.claim.attempt, event)
        figures = [figure for event in self.pending if isinstance(event, Figures) for figure in event.figures]
        records.put_figures(session, self.claim.job_id, figures)
        for event in self.pending:
            if isinstance(event, SpeedsMeasured):
                speeds.add(session, event, job_id=self.claim.job_id)
        return cancel

    def _add_event(self, session: Session, event: StatusChanged) -> None:
        records.add_event(session, self.claim.job_id, self.claim.attempt, event)


def _success(decided: GateDecision | None) -> str:
    if decided is None or decided.outcome == "released":
        return "The job has succeeded."
    return f"The job has succeeded, and the gate withholds its files: {decided.outcome}."


def end_hopeless(session: Session, *, max_failures: int) -> int:
    """End jobs that no worker will end, with an event each. Returns their number."""
    ended = jobs.end_hopeless(session, max_failures=max_failures)
    for job in ended:
        if job.status == "cancelled":
            event = StatusChanged(status="cancelled", message="The job was cancelled after its worker had died.")
        else:
            error = JobError.model_validate(job.error)
            event = StatusChanged(status="failed", message=error.message, code=error.code)
        records.add_event(session, job.id, job.attempt, event)
    return len(ended)
