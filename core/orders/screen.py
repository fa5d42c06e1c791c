"""Screening a dataset without training. Not here: the screening itself (core.screening, core.pipeline.screen)."""

from pydantic import ValidationError

from core import catalog
from core.catalog import Catalog
from core.db import datasets, policies
from core.db.models import Job
from core.db.session import Sessions, transaction
from core.errors import InvalidInput
from core.orders.place import Send, add_job, wake_worker
from core.schemas.job import DatasetId, ScreenSpec
from core.schemas.keys import Caller
from core.schemas.policy import Policy
from core.schemas.screening import ScreenRequest, registered_checks


def screen(
    sessions: Sessions, listed: Catalog, caller: Caller, dataset: DatasetId, request: ScreenRequest, *, send: Send
) -> Job:
    """Queue a screening job.

    Raises:
        NotFound: the dataset does not exist.
        InvalidModel, InvalidInput: as `complete_screening`.
        Unavailable: the database cannot be reached.
    """
    with transaction(sessions) as session:
        datasets.get(session, dataset, param="dataset_id")
        policy = policies.current(session, caller.project)
        job = add_job(session, caller, complete_screening(dataset, request, policy.policy, listed), policy)
    wake_worker(job, send)
    return job


def complete_screening(dataset: DatasetId, request: ScreenRequest, policy: Policy, listed: Catalog) -> ScreenSpec:
    """The order that is stored: what the request leaves out comes from the policy.

    If the request names a base model and no screening, checks that need a base model report; without a base model they
    are off.

    Raises:
        InvalidModel: the base model is not allowed, or its files cannot be used.
        InvalidInput: code `invalid_parameter`; a check needs a base model and the request names none.
    """
    screening = request.screening or policy.screening
    if request.base_model is not None:
        catalog.find(listed.models, request.base_model)
    if request.screening is None:
        action, named = ("off", ()) if request.base_model is None else ("report", screening.model_checks)
        unset = [check.name for check in registered_checks() if check.needs_model and check.name not in named]
        screening = screening.model_copy(update=dict.fromkeys(unset, action))
    try:
        return ScreenSpec(dataset=dataset, base_model=request.base_model, screening=screening)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"base_model: {reason}.", code="invalid_parameter", param="base_model") from error
