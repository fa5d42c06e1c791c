"""Checking a base model: ordering it, and finding the newest result that still describes the model.

Not here: the check itself (core.pipeline.modelcheck).
"""

from core import catalog
from core.catalog import Catalog
from core.db import artifacts, jobs, policies
from core.db.models import Job
from core.db.session import Session, Sessions, transaction
from core.errors import NotFound
from core.modelfiles.state import entry_digest, files_digest
from core.orders.place import Send, add_job, wake_worker
from core.schemas.job import CheckRequest, CheckSpec
from core.schemas.keys import Caller
from core.schemas.modelcheck import RESULT, ModelCheck
from core.storage import ArtifactStore


def check_model(
    sessions: Sessions, listed: Catalog, caller: Caller, name: str, request: CheckRequest, *, send: Send
) -> Job:
    """Queue a job that checks a base model.

    Raises:
        InvalidModel: the base model is not allowed, or its files cannot be used.
        Unavailable: the database cannot be reached.
    """
    catalog.find(listed.models, name)
    spec = CheckSpec(base_model=name, **dict(request))
    with transaction(sessions) as session:
        job = add_job(session, caller, spec, policies.current(session, caller.project))
    wake_worker(job, send)
    return job


def latest_check(session: Session, store: ArtifactStore, listed: Catalog, name: str) -> tuple[Job, ModelCheck]:
    """The newest check of a base model, of any project: it contains nothing of a project's data.

    A check of another entry, or of other files than this machine has, is not returned.

    Raises:
        InvalidModel: the base model is not allowed, or its files cannot be used.
        NotFound: code `model_not_checked`; no check describes the model as it is now.
    """
    entry = catalog.find(listed.models, name)
    job = jobs.newest_check(session, name)
    if job is None:
        raise _not_checked(name, "has not been checked yet")
    path = store.path(artifacts.released(session, job.id, RESULT).key)
    check = ModelCheck.model_validate_json(path.read_bytes())
    files = files_digest(entry.source)
    if check.entry_sha256 != entry_digest(entry) or (files and check.state_sha256 and files != check.state_sha256):
        raise _not_checked(name, "has changed since it was last checked")
    return job, check


def _not_checked(name: str, why: str) -> NotFound:
    return NotFound(
        f"The base model {name!r} {why}. Order a check: POST /models/{name}/check, or `securetune models check "
        f"{name}`.",
        code="model_not_checked",
        param="name",
    )
