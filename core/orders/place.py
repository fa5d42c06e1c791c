"""Placing an order: check it, store the job, and wake a worker once the job is committed.

Not here: the rules about an order (core.orders.check), running it (worker).
"""

import logging
from collections.abc import Callable

from core.catalog import Catalog
from core.db import jobs, policies, records
from core.db.models import Job
from core.db.session import Session, Sessions, transaction
from core.errors import Unavailable
from core.orders.assign import gather
from core.orders.check import check_policy, check_rows, complete
from core.orders.repaired import quarantined_order
from core.schemas.events import StatusChanged
from core.schemas.job import JobInputs, JobOrder, JobSpec
from core.schemas.keys import Caller
from core.schemas.policy import PolicyRef

_LOG = logging.getLogger("securetune.orders")

Send = Callable[[str], None]
"""Sends a job's id to the workers; may raise Unavailable. `core.queue.send` with its first argument bound is one."""


def place(sessions: Sessions, listed: Catalog, caller: Caller, spec: JobSpec, *, send: Send) -> Job:
    """Queue a tuning job with every default filled in, under the current policy of the caller's project.

    Raises:
        InvalidInput: the order breaks a rule (core.orders.check), its policy or the policy's limits.
        InvalidModel: the base model cannot be used.
        NotFound: a dataset, an uploaded prompt set or the repaired job does not exist.
        Conflict: code `nothing_to_repair`; the order repairs a job without quarantined weights.
        Unavailable: the database cannot be reached. A broker that is away is only logged: the sweep sends the job.
    """
    spec = complete(spec, listed)
    with transaction(sessions) as session:
        inputs = accept(session, listed, caller, spec)
        job = add_job(session, caller, inputs.spec, inputs.policy)
    wake_worker(job, send)
    return job


def accept(session: Session, listed: Catalog, caller: Caller, spec: JobSpec) -> JobInputs:
    """Check a completed order against the uploads and the policy of the caller's project. Nothing is stored.

    Raises:
        InvalidInput: the order breaks its policy or the policy's limits, or an upload cannot be used for it.
        NotFound: a dataset, an uploaded prompt set or the repaired job does not exist.
        Conflict: code `nothing_to_repair`.
    """
    policy = policies.for_job(session, caller.project, spec.policy)
    check_policy(spec, policy.policy)
    inputs = gather(session, listed, spec, policy)
    check_rows(inputs.dataset.summary, spec)
    if spec.repairs is not None:
        quarantined_order(session, spec.repairs)
    return inputs


def add_job(session: Session, caller: Caller, spec: JobOrder, policy: PolicyRef) -> Job:
    """Store a checked order as a queued job, with its first event."""
    job = jobs.add(session, spec, project=caller.project, policy=policy)
    records.add_event(
        session, job.id, job.attempt, StatusChanged(status="queued", message="The job waits for a worker.")
    )
    return job


def wake_worker(job: Job, send: Send) -> None:
    """Send a committed job to the workers. If the broker is away, the next sweep sends it."""
    try:
        send(job.id)
    except Unavailable as error:
        _LOG.warning("%s is queued, but no worker was notified: %s The next sweep sends it.", job.id, error.message)
