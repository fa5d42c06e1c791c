"""The policy of the caller's project: read by every key, set by keys with the right `policy`, kept in versions.

Not here: the rules (core.schemas.policy), deciding by them (core.gate).
"""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from api import examples, schemas
from api.deps import CallerDep, LimitQuery, PartsDep
from core import orders
from core.db import policies
from core.db.session import transaction
from core.schemas.policy import Policy
from core.schemas.replies import Page, PolicyReply

router = APIRouter(prefix="/policy", tags=["policy"])

_POLICIES = {
    "strict": {
        "summary": "Stricter than the built-in policy",
        "value": {
            "attacks": {"max_rate": 0.05, "max_increase": 0.05},
            "families": {"prefill": {"max_rate": 0.2}},
            "base_exceeds_bound": "quarantine",
            "min_answers": 200,
        },
    },
    "judged": {
        "summary": "With a judge model and a bound on the task",
        "value": {
            "judges": ["rules", "strongreject:house"],
            "task": [{"metric": "loss", "bound": 2.5}],
            "screening": {"personal_data": "drop", "poison": "reject"},
            "job_limits": {"max_rate": 0.2},
        },
    },
}


@router.get("", summary="Show the policy", response_description="What holds now")
def show(caller: CallerDep, parts: PartsDep) -> PolicyReply:
    """What the project's next job is held to. Version 0 is the built-in policy."""
    with transaction(parts.sessions) as session:
        return schemas.policy(caller.project, policies.newest(session, caller.project))


@router.put(
    "",
    summary="Set the policy",
    response_description="A new version",
    responses=examples.errors(400, 403, 409, 413),
)
def put(policy: Annotated[Policy, Body(openapi_examples=_POLICIES)], caller: CallerDep, parts: PartsDep) -> PolicyReply:
    """Replaces the whole policy: what is left out is as in the built-in one. Needs a key with the right `policy`.

    Jobs keep the version that held when they were ordered.
    """
    orders.check_right(caller, "policy")
    with transaction(parts.sessions) as session:
        return schemas.policy(caller.project, policies.add(session, caller.project, policy, key_id=caller.key_id))


@router.get(
    "/versions",
    summary="List the policy's versions",
    response_description="Newest first",
)
def versions(
    caller: CallerDep,
    parts: PartsDep,
    limit: LimitQuery = 20,
    after: Annotated[
        int | None, Query(ge=1, le=2**31, description="Version of the last one of the page before.")
    ] = None,
) -> Page[PolicyReply]:
    """Newest first; empty where the built-in policy was never replaced."""
    with transaction(parts.sessions) as session:
        rows, more = policies.page(session, caller.project, limit=limit, before=after)
        return Page(data=tuple(schemas.policy(caller.project, row) for row in rows), has_more=more)


@router.get(
    "/versions/{version}",
    summary="Show a version of the policy",
    response_description="That version",
    responses=examples.errors(404),
)
def version(
    version: Annotated[int, Path(ge=1, le=2**31, description="Number of the version.")],
    caller: CallerDep,
    parts: PartsDep,
) -> PolicyReply:
    """What held then."""
    with transaction(parts.sessions) as session:
        return schemas.policy(caller.project, policies.get(session, caller.project, version))
