"""One job from its claim to its end: claim it, give it to a training process, watch that, record how it ended.

    claim ── somebody else has it, or it has ended: nothing to do
      │
    order ── the spec, the dataset or the model cannot be used: failed
      │
    watch ── Succeeded ─────────────────────────────────► succeeded
             Failed ────────────────────────────────────► failed
             stopped or killed, the user asked for it ──► cancelled
             stopped or killed, the worker shall stop ──► queued again, no failure
             gone without a word ───────────────────────► queued again, one failure more; failed at the limit
             the lease is lost ─────────────────────────► nothing is written: the job is another worker's

Not here: Celery (worker.tasks, worker.main), what is lost with a worker (worker.sweep).
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
from worker.child import Gone, TrainingProcess
from worker.logs import JobLogger, job_logger
from worker.pool import WarmPool
from worker.protocol import Ending, Failed, Order, ProtocolError, Stopped, Succeeded
from worker.recorder import Recorder
from worker.watch import Watch

_log = logging.getLogger("worker")
_REPORT = "report.json"
_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
_LAST_WORDS = 300
"""Characters of the log that a user gets to see."""


class Supervisor:
    """Runs jobs; safe to be shared by the threads of a worker."""

    def __init__(self, settings: Settings, *, sessions: Sessions, pool: WarmPool, send: Callable[[str], None]) -> None:
        """`send` puts a job's id into the queue; it may raise Unavailable."""
        self._settings = settings
        self._sessions = sessions
        self._pool = pool
        self._send = send
        self._shutdown = Event()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    def shut_down(self) -> None:
        """Give back what runs, take nothing more. May be called from a signal handler."""
        self._shutdown.set()

    def run(self, job_id: str) -> None:
        """Look at a job, and do it if it is there to be done."""
        if self._shutdown.is_set():
            self._wake_others(job_id)
            return
        try:
            taken = self._take(job_id)
        except Unavailable as error:
            _log.warning("%s cannot be claimed now and will be sent again: %s", job_id, error.message)
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
        """Claim the job and gather what its process must know, in one transaction."""
        with transaction(self._sessions) as session:
            claim = jobs.claim(session, job_id, owner=self._owner, lease_seconds=self._settings.lease_seconds)
            if claim is None:
                _log.info("%s is not there to be done", job_id)
                return None
            log = job_logger(job_id, claim.attempt)
            try:
                order = self._order(session, claim)
            except (InvalidInput, NotFound) as error:
                log.warning("cannot begin: %s", error.message)
                jobs.finish(
                    session, claim, "failed", JobError(code=error.code, message=error.message, param=error.param)
                )
                event = StatusChanged(status="failed", message=error.message, code=error.code)
                records.add_event(session, job_id, claim.attempt, event)
                return None
            event = StatusChanged(status="running", message=f"Attempt {claim.attempt} begins.")
            records.add_event(session, job_id, claim.attempt, event)
            log.info("claimed")
            return claim, order

    def _order(self, session: Session, claim: Claim) -> Order:
        assignment, model = assign(session, claim, catalog.read(self._settings.models))
        return Order(
            assignment=assignment,
            model=model,
            store=self._settings.artifacts.absolute(),
            device=self._settings.device,
            threads=self._settings.threads,
        )

    def _attempt(self, claim: Claim, order: Order, process: TrainingProcess) -> bool:
        """One attempt, recorded; True when the job is in the queue again."""
        log = job_logger(claim.job_id, claim.attempt)
        recorder = Recorder(self._sessions, claim, self._settings.lease_seconds)
        watch = Watch(process, recorder, settings=self._settings, shutdown=self._shutdown, log=log)
        process.log.open(self._settings.state / "logs" / f"{claim.job_id}-{claim.attempt}.log")
        process.begin(order)
        log.info("given to process %d", process.pid)
        try:
            ending = watch.until_end()
            process.close()
            log.info("ended: %s", ending.__class__.__name__.lower())
            return self._patiently(log, lambda: self._settle(recorder, watch, ending, process, log))
        except LeaseLost as lost:
            log.warning("%s Nothing more is written.", lost.message)
            return False

    def _settle(
        self, recorder: Recorder, watch: Watch, ending: Ending | Gone, process: TrainingProcess, log: JobLogger
    ) -> bool:
        """Record how it ended; True when the job is in the queue again. A job that is done stays done."""
        match ending:
            case Succeeded(outcome=outcome) if not own_files(outcome, recorder.claim.job_id):
                message = "The training process reported files that are not this job's. The server's log has more."
                recorder.fail(watch.news, JobError(code="protocol_error", message=message))
            case Succeeded(outcome=outcome):
                return self._succeed(recorder, watch, outcome, log)
            case _ if watch.reason == "cancel":
                recorder.cancel(watch.news)
            case Failed(error=error):
                recorder.fail(watch.news, error)
            case Stopped() | Gone() if watch.reason == "shutdown":
                recorder.release(watch.news)
                return True
            case Stopped() | Gone():
                error = died(ending, process.log.tail(1))
                log.error("%s The end of its log: %s", error.message, " | ".join(process.log.tail(20)))
                return recorder.interrupt(watch.news, error, max_failures=self._settings.max_failures)
        return False

    def _succeed(self, recorder: Recorder, watch: Watch, outcome: Outcome, log: JobLogger) -> bool:
        """Sign and record. What cannot be signed now is tried again: all that was computed is kept."""
        try:
            whole = self._signed(outcome, recorder.claim, log)
        except SecureTuneError as error:
            log.error("the report cannot be signed: %s", error.message)
            failed = JobError(code=error.code, message=f"The report cannot be signed: {error.message}")
            return recorder.interrupt(watch.news, failed, max_failures=self._settings.max_failures)
        recorder.succeed(watch.news, whole)
        return False

    def _signed(self, outcome: Outcome, claim: Claim, log: JobLogger) -> Outcome:
        """The outcome with its signed report. The key never gets near the process that runs others' models.

        Raises:
            SecureTuneError: the key cannot be used, the disk is full, or the report is not the one that was reported.
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
                raise ProtocolError(f"The training process reported something else than it stored: {error}") from error
        key = f"jobs/{claim.job_id}/attempts/{claim.attempt}/{SIGNED_REPORT}"
        file = store.put(key, envelope, name=SIGNED_REPORT, media_type=_ENVELOPE, gated=False)
        log.info("the report is signed by key %s", signer.keyid)
        return outcome.model_copy(update={"artifacts": (*outcome.artifacts, file)})

    def _patiently(self, log: JobLogger, record: Callable[[], bool]) -> bool:
        """Record, when the database is there again. A worker that shall stop tries once; then the lease runs out."""
        said = False
        while True:
            leaving = self._shutdown.is_set()
            try:
                return record()
            except Unavailable as error:
                if not said:
                    log.warning("how it ended is not recorded yet: %s", error.message)
                said = True
                if leaving:
                    return False
                self._shutdown.wait(self._settings.heartbeat_seconds)

    def _wake_others(self, job_id: str) -> None:
        try:
            self._send(job_id)
        except Unavailable as error:
            _log.warning("%s waits for the next sweep: %s", job_id, error.message)


def own_files(outcome: Outcome, job_id: str) -> bool:
    """Whether a process reports only files of its own job, each once: it is not trusted with anybody else's."""
    names = {file.name for file in outcome.artifacts}
    own = all(file.key.startswith(f"jobs/{job_id}/") for file in outcome.artifacts)
    return own and len(names) == len(outcome.artifacts)


def died(ending: Stopped | Gone, last_words: list[str]) -> JobError:
    """What to say of a process that ended without having been asked to."""
    said = f" It last wrote: {last_words[-1][:_LAST_WORDS]}" if last_words else ""
    match ending:
        case Gone(status=status) if status == -signal.SIGKILL:
            how, said = "was killed (SIGKILL): by hand, or by the system because memory ran out", ""
        case Gone(status=status) if status < 0:
            how = f"died of {signal.Signals(-status).name}"
        case Gone(status=status):
            how = f"ended early (exit status {status})"
        case Stopped():
            how = "stopped without having been asked to"
    return JobError(code="process_died", message=f"The training process {how}.{said}")
