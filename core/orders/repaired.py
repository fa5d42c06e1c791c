"""The weights that a repair begins with: of which job, and which files. Not here: ordering one (core.orders.repair)."""

from core.db import artifacts, gate, jobs
from core.db.models import Job
from core.db.session import Session
from core.errors import Conflict, InvalidInput
from core.schemas.job import JobSpec, TrainedFile, read_order

_FOLDERS = ("adapter/", "model/")
_CARD = "README.md"


def quarantined_order(session: Session, job_id: str) -> JobSpec:
    """The order of a job whose weights the gate has quarantined.

    Raises:
        NotFound: the job does not exist.
        Conflict: code `nothing_to_repair`; it has no such weights.
    """
    job = jobs.get(session, job_id)
    standing = gate.standing(session, job)
    if job.status != "succeeded" or standing.decision is None:
        raise _nothing(job, "it has trained nothing" if job.status == "succeeded" else f"it is {job.status}")
    if standing.released:
        raise _nothing(job, "its weights are released")
    if standing.decision.outcome == "undecided":
        raise _nothing(
            job, "its evaluation is inconclusive, which is no sign of a fault. Order it again with a larger evaluation"
        )
    return _tuning(job)


def trained_files(session: Session, spec: JobSpec) -> tuple[TrainedFile, ...]:
    """The adapter or model that an order repairs; empty if it repairs none.

    Raises:
        NotFound: the repaired job does not exist.
        InvalidInput: code `repair_mismatch`; its weights do not fit the order.
    """
    if spec.repairs is None:
        return ()
    trained = _tuning(jobs.get(session, spec.repairs))
    kept = {
        "base_model": (spec.base_model, trained.base_model),
        "training.method": (spec.training.method, trained.training.method),
        "training.lora": (spec.training.lora, trained.training.lora),
    }
    for param, (ours, theirs) in kept.items():
        if ours != theirs:
            raise InvalidInput(
                f"{param}: it is not that of job {spec.repairs}, and a repair begins with the weights of that job. "
                f"POST /jobs/{spec.repairs}/repair sets what must be kept.",
                code="repair_mismatch",
                param=param,
            )
    found = [row for row in artifacts.of_job(session, spec.repairs) if row.gated and row.name.startswith(_FOLDERS)]
    return tuple(TrainedFile(key=row.key, sha256=row.sha256) for row in found if not row.name.endswith(_CARD))


def _tuning(job: Job) -> JobSpec:
    spec = read_order(job.spec)
    if not isinstance(spec, JobSpec):
        raise _nothing(job, "it has trained nothing")
    return spec


def _nothing(job: Job, why: str) -> Conflict:
    return Conflict(f"There is nothing to repair in job {job.id}: {why}.", code="nothing_to_repair", param="job_id")
