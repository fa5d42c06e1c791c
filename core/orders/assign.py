"""From a claimed job to the assignment of its training process.

The server's list and the uploads may have changed since the order was placed, so they are checked again.
Not here: claiming a job, starting the process (worker).
"""

from collections.abc import Mapping

from pydantic import ValidationError

from core import catalog
from core.catalog import Catalog
from core.db import datasets, jobs, prompt_sets
from core.db.jobs import Claim
from core.db.session import Session
from core.errors import InvalidInput
from core.orders.check import check_evaluation
from core.orders.repaired import trained_files
from core.schemas.job import (
    Assignment,
    CheckAssignment,
    CheckSpec,
    JobAssignment,
    JobInputs,
    JobOrder,
    JobSpec,
    ScreenAssignment,
    ScreenSpec,
    read_order,
)
from core.schemas.models import BaseModelEntry
from core.schemas.policy import PolicyRef


def assign(session: Session, claim: Claim, listed: Catalog) -> tuple[JobAssignment, BaseModelEntry | None]:
    """What the training process needs to know, and its base model; None for a screening without one.

    Raises:
        InvalidInput: code `invalid_spec`, or what the order names has been removed from the server's list.
        InvalidModel: the base model cannot be used any more.
        NotFound: an upload does not exist any more.
    """
    job = jobs.get(session, claim.job_id)
    spec = _read(job.spec)
    model = catalog.find(listed.models, spec.base_model) if spec.base_model is not None else None
    if isinstance(spec, CheckSpec):
        return CheckAssignment(job_id=claim.job_id, attempt=claim.attempt, spec=spec), model
    if isinstance(spec, ScreenSpec):
        dataset = datasets.ref(datasets.get(session, spec.dataset, param="dataset"))
        return ScreenAssignment(job_id=claim.job_id, attempt=claim.attempt, spec=spec, dataset=dataset), model
    check_evaluation(listed, spec)
    inputs = gather(session, listed, spec, PolicyRef.model_validate(job.policy) if job.policy else PolicyRef())
    return Assignment(job_id=claim.job_id, attempt=claim.attempt, **dict(inputs)), model


def gather(session: Session, listed: Catalog, spec: JobSpec, policy: PolicyRef) -> JobInputs:
    """An order with everything that it names. `spec` must have been checked by `check_evaluation`.

    Raises:
        InvalidInput: code `invalid_prompt_set`; an uploaded prompt set has no prompts for its use. `repair_mismatch`.
        NotFound: an upload or the repaired job does not exist.
    """
    dataset = datasets.ref(datasets.get(session, spec.dataset, param="dataset"))
    validation, prompts = spec.validation_dataset, spec.security.prompts
    held_out = datasets.ref(datasets.get(session, validation, param="validation_dataset")) if validation else None
    files = catalog.prompt_files(listed, prompts) | prompt_sets.files(session, prompts)
    return JobInputs(
        spec=spec,
        dataset=dataset,
        validation=held_out,
        judges=catalog.judges(listed, spec),
        benchmarks=tuple(listed.benchmarks.values()),
        harmful=files.get("harmful"),
        safe=files.get("safe"),
        policy=policy,
        repaired=trained_files(session, spec),
    )


def _read(stored: Mapping[str, object]) -> JobOrder:
    try:
        return read_order(stored)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"Another version of the server stored this job: {place}: {first['msg']}. Create the job again.",
            code="invalid_spec",
            param=place,
        ) from error
