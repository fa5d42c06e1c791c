"""Ordering a repair: a job of its own, which begins with weights in quarantine and goes through the whole gate.

The repaired job keeps its weights, its decision and its figures. Not here: what a repair does (core.schemas.repair).
"""

from core.catalog import Catalog
from core.db.models import Job
from core.db.session import Sessions, transaction
from core.orders.place import Send, place
from core.orders.repaired import quarantined_order
from core.schemas.keys import Caller
from core.schemas.repair import RepairRequest


def repair(
    sessions: Sessions, listed: Catalog, caller: Caller, job_id: str, request: RepairRequest, *, send: Send
) -> Job:
    """Queue a job that repairs the weights of another one. It is measured as that one was, under today's policy.

    Raises:
        NotFound: the job does not exist.
        Conflict: code `nothing_to_repair`.
        InvalidInput, InvalidModel, NotFound, Unavailable: as `place`.
    """
    with transaction(sessions) as session:
        spec = quarantined_order(session, job_id)
    first, *others = request.runs
    update = {"strategy": first, "compare": tuple(others), "repairs": job_id}
    return place(sessions, listed, caller, spec.model_copy(update=update), send=send)
