"""One job from its claim to its end: claim it, send it to a training process, watch that, record how it ended.

    claim ── another worker has it, or it has ended: nothing to do
      │
    order ── the spec, the dataset or the model cannot be used: failed
      │
    watch ── Succeeded ─────────────────────────────────► succeeded
             Failed ────────────────────────────────────► failed
             stopped or killed, the user cancelled it ──► cancelled
             stopped or killed, the worker shuts down ──► queued again, not a failure
             exited without a final message ────────────► queued again, one more failure; failed at the limit
             the lease is lost ─────────────────────────► nothing is written: another worker has the job

Not here: Celery (worker.service, worker.main), jobs of dead workers (worker.sweep).
"""

import logging
import os
import signal
import socket
from collections.abc import Callable
from threading import Event

from core import catalog
from core.config import Settings
from core.db import jobs, records
from core.db.jobs import Claim, LeaseLost
from core.db.session import Session, Sessions, transaction
from core.errors import InvalidInput, NotFound, SecureTuneError, Unavailable
from core.orders import assign
from core.schemas.events import JobError, StatusChanged
from core.schemas.results import Outcome
from core.signing import SIGNED_REPORT, SigningKeys, sign_report
from core.storage import ArtifactStore
from worker.child import Exited, TrainingProcess
from worker.logs import JobLogger, job_logger
from worker.pool import WarmPool
from worker.protocol import Ending, Failed, Order, ProtocolError, Stopped, Succeeded
from worker.recorder import Recorder
from worker.watch import Watch

_log = logging.getLogger("worker")
_REPORT = "report.json"
_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
_SHOWN_CHARACTERS = 300
"""Characters of the log that an error message shows."""


class Supervisor:
    """Runs jobs. Thread-safe."""

    def __init__(self, settings: Settings, *, sessions: Sessions, pool: WarmPool, send: Callable[[str], None]) -> None:
        """`send` notifies workers of a job; it may raise Unavailable."""
        self._settings = settings
        self._sessions = sessions
        self._pool = pool
        self._send = send
        self._shutdown = Event()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    def shut_down(self) -> None:
        """Put running jobs back into the queue and claim no more. May be called from a signal handler."""
        self._shutdown.set()

    def run(self, job_id: str) -> None:
        """Run a job if it can be claimed."""
        if self._shutdown.is_set():
            self._wake_others(job_id)
            return
        try:
            taken = self._take(job_id)
        except Unavailable as error:
            _log.warning("%s cannot be claimed now; the sweep sends it again: %s", job_id, error.message)
            return
        if taken is None:
            return
        claim, order = taken
        process = self._pool.take()
        try:
            again = self._attempt(claim, order, process)
        finally:
            process.close()
            self._pool.add()
        if again:
            self._wake_others(job_id)

    def _take(self, job_id: str) -> tuple[Claim, Order] | None:
        """Claim the job and assemble its order, in one transaction."""
        with transaction(self._sessions) as session:
            claim = jobs.claim(session, job_id, owner=self._owner, lease_seconds=self._settings.lease_seconds)
            if claim is None:
                _log.info("%s cannot be claimed: it has ended, or another worker has it", job_id)
                return None
            log = job_logger(job_id, claim.attempt)
            try:
                order = self._order(session, claim)
            except (InvalidInput, NotFound) as error:
                log.warning("cannot start: %s", error.message)
                jobs.finish(
                    session, claim, "failed", JobError(code=error.code, message=error.message, param=error.param)
                )
                event = StatusChanged(status="failed", message=error.message, code=error.code)
                records.add_event(session, job_id, claim.attempt, event)
                return None
            event = StatusChanged(status="running", message=f"Attempt {claim.attempt} starts.")
            records.add_event(session, job_id, claim.attempt, event)
            log.info("claimed")
            return claim, order

    def _order(self, session: Session, claim: Claim) -> Order:
        assignment, model = assign(session, claim, catalog.read(self._settings.models_file, self._settings.converted))
        return Order(
            assignment=assignment,
            model=model,
            store=self._settings.artifacts.absolute(),
            device=self._settings.device,
            threads=self._settings.threads,
            vllm_python=self._settings.vllm_python,
        )

    def _attempt(self, claim: Claim, order: Order, process: TrainingProcess) -> bool:
        """Run one attempt and record it; returns whether the job is queued again."""
        log = job_logger(claim.job_id, claim.attempt)
        recorder = Recorder(self._sessions, claim, self._settings.lease_seconds, process)
        watch = Watch(process, recorder, settings=self._settings, shutdown=self._shutdown, log=log)
        process.log.open(self._settings.state / "logs" / f"{claim.job_id}-{claim.attempt}.log")
        process.begin(order)
        log.info("sent to process %d", process.pid)
        try:
            ending = watch.until_end()
            process.close()
            log.info("ended: %s", ending.__class__.__name__.lower())
            return self._retry(log, lambda: self._record_ending(recorder, watch, ending, process, log))
        except LeaseLost as lost:
            log.warning("%s Nothing else is written.", lost.message)
            return False

    def _record_ending(
        self, recorder: Recorder, watch: Watch, ending: Ending | Exited, process: TrainingProcess, log: JobLogger
    ) -> bool:
        """Record how the attempt ended; returns whether the job is queued again. Success goes before cancellation."""
        match ending:
            case Succeeded(outcome=outcome) if not has_only_own_files(outcome, recorder.claim.job_id):
                message = "The training process reported files of another job. The server's log has details."
                recorder.fail(JobError(code="protocol_error", message=message))
            case Succeeded(outcome=outcome) if not has_own_weights(outcome):
                message = "The training process reported a decision without the digest of its weights."
                recorder.fail(JobError(code="protocol_error", message=message))
            case Succeeded(outcome=outcome):
                return self._succeed(recorder, outcome, log)
            case _ if watch.reason == "cancel":
                recorder.cancel()
            case Failed(error=error):
                recorder.fail(error)
            case Stopped() | Exited() if watch.reason == "shutdown":
                recorder.release()
                return True
            case Stopped() | Exited():
                error = describe_exit(ending, process.log.tail(1))
                log.error("%s End of its log: %s", error.message, " | ".join(process.log.tail(20)))
                return recorder.interrupt(error, max_failures=self._settings.max_failures)
        return False

    def _succeed(self, recorder: Recorder, outcome: Outcome, log: JobLogger) -> bool:
        """Sign the report and record success. If signing fails, the job is queued again; stage results are reused."""
        try:
            whole = self._signed(outcome, recorder.claim, log)
        except SecureTuneError as error:
            log.error("the report cannot be signed: %s", error.message)
            failed = JobError(code=error.code, message=f"The report cannot be signed: {error.message}")
            return recorder.interrupt(failed, max_failures=self._settings.max_failures)
        recorder.succeed(whole)
        return False

    def _signed(self, outcome: Outcome, claim: Claim, log: JobLogger) -> Outcome:
        """Add the signed report to the outcome. The process that runs untrusted models never sees the key.

        Raises:
            SecureTuneError: the key cannot be used, the disk is full, or the digest of the report is wrong.
        """
        report = next((file for file in outcome.artifacts if file.name == _REPORT), None)
        if report is None:
            return outcome
        store = ArtifactStore(self._settings.artifacts)
        digests = {file.name: file.sha256 for file in outcome.artifacts}
        with SigningKeys(self._settings.signing, self._settings.signing_key).signer() as signer:
            try:
                envelope = sign_report(store.path(report.key).read_bytes(), digests, signer)
            except ValueError as error:
                raise ProtocolError(
                    f"The training process reported a digest that does not match the stored file: {error}"
                ) from error
        key = f"jobs/{claim.job_id}/attempts/{claim.attempt}/{SIGNED_REPORT}"
        file = store.put(key, envelope, name=SIGNED_REPORT, media_type=_ENVELOPE, gated=False)
        log.info("signed the report with key %s", signer.keyid)
        return outcome.model_copy(update={"artifacts": (*outcome.artifacts, file)})

    def _retry(self, log: JobLogger, record: Callable[[], bool]) -> bool:
        """Record until the database is reachable. A worker that shuts down tries once; then the lease expires."""
        logged = False
        while True:
            leaving = self._shutdown.is_set()
            try:
                return record()
            except Unavailable as error:
                if not logged:
                    log.warning("the end of the attempt is not recorded yet: %s", error.message)
                logged = True
                if leaving:
                    return False
                self._shutdown.wait(self._settings.heartbeat_seconds)

    def _wake_others(self, job_id: str) -> None:
        try:
            self._send(job_id)
        except Unavailable as error:
            _log.warning("%s waits for the next sweep: %s", job_id, error.message)


def has_only_own_files(outcome: Outcome, job_id: str) -> bool:
    """Whether all files belong to the job and have different names. The training process is not trusted."""
    names = {file.name for file in outcome.artifacts}
    own = all(file.key.startswith(f"jobs/{job_id}/") for file in outcome.artifacts)
    return own and len(names) == len(outcome.artifacts)


def has_own_weights(outcome: Outcome) -> bool:
    """Whether the decision about the job's own run comes with the digest of its weights."""
    return outcome.gate is None or outcome.gate in [each.gate for each in outcome.weights]


def describe_exit(ending: Stopped | Exited, last_lines: list[str]) -> JobError:
    """The error of a process that ended without a request."""
    log = f" Last line of its log: {last_lines[-1][:_SHOWN_CHARACTERS]}" if last_lines else ""
    match ending:
        case Exited(status=status) if status == -signal.SIGKILL:
            how, log = "was killed (SIGKILL), by hand or because the system ran out of memory", ""
        case Exited(status=status) if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        case Exited(status=status):
            how = f"exited early (exit status {status})"
        case Stopped():
            how = "stopped without a request"
    return JobError(code="process_died", message=f"The training process {how}.{log}")
