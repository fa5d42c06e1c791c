"""The policy of the caller's project: every key can read it, keys with the right `policy` can set new versions.

Not here: the rules (core.schemas.policy), decisions (core.gate).
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


@router.get("", summary="Get the policy", response_description="The current policy")
def show(caller: CallerDep, parts: PartsDep) -> PolicyReply:
    """The policy of the project's next job. Version 0 is the built-in policy."""
    with transaction(parts.sessions) as session:
        return schemas.policy(caller.project, policies.newest(session, caller.project))


@router.put(
    "", summary="Set the policy", response_description="The new version", responses=examples.errors(400, 403, 409, 413)
)
def put(policy: Annotated[Policy, Body(openapi_examples=_POLICIES)], caller: CallerDep, parts: PartsDep) -> PolicyReply:
    """Replaces the whole policy; fields that are left out have their defaults. Needs a key with the right `policy`.

    Existing jobs keep their version.
    """
    orders.check_right(caller, "policy")
    with transaction(parts.sessions) as session:
        return schemas.policy(caller.project, policies.add(session, caller.project, policy, key_id=caller.key_id))


@router.get("/versions", summary="List the policy's versions", response_description="Newest first")
def versions(
    caller: CallerDep,
    parts: PartsDep,
    limit: LimitQuery = 20,
    after: Annotated[
        int | None, Query(ge=1, le=2**31, description="Version of the last item of the previous page.")
    ] = None,
) -> Page[PolicyReply]:
    """Newest first. The list is empty if the project has only the built-in policy."""
    with transaction(parts.sessions) as session:
        rows, more = policies.page(session, caller.project, limit=limit, before=after)
        return Page(data=tuple(schemas.policy(caller.project, row) for row in rows), has_more=more)


@router.get(
    "/versions/{version}",
    summary="Get a version of the policy",
    response_description="The version",
    responses=examples.errors(404),
)
def version(
    version: Annotated[int, Path(ge=1, le=2**31, description="Number of the version, from 1.")],
    caller: CallerDep,
    parts: PartsDep,
) -> PolicyReply:
    """An earlier or the current version of the policy."""
    with transaction(parts.sessions) as session:
        return schemas.policy(caller.project, policies.get(session, caller.project, version))
