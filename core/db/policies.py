"""Queries on policies. Versions are added, never changed; version 0 is the built-in policy."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.db.models import ProjectPolicy
from core.errors import Conflict, InvalidInput, NotFound
from core.schemas.policy import Policy, PolicyRef
from core.schemas.policy_change import PolicyChange, PolicyLimitError, changed


def newest(session: Session, project: str) -> ProjectPolicy | None:
    """The current version; None if the project has set none."""
    return session.scalars(
        select(ProjectPolicy).where(ProjectPolicy.project == project).order_by(ProjectPolicy.version.desc()).limit(1)
    ).one_or_none()


def current(session: Session, project: str) -> PolicyRef:
    """The current policy of a project."""
    row = newest(session, project)
    return PolicyRef() if row is None else PolicyRef(version=row.version, policy=Policy.model_validate(row.policy))


def for_job(session: Session, project: str, change: PolicyChange | None) -> PolicyRef:
    """The policy of a new job: the project's current policy with the job's changes.

    Raises:
        InvalidInput: code `policy_limit`; a change is looser than the policy allows.
    """
    held = current(session, project)
    if change is None:
        return held
    try:
        return held.model_copy(update={"policy": changed(held.policy, change), "changed": True})
    except PolicyLimitError as error:
        raise InvalidInput(
            f"{error.param}: {error.message}. Ask an administrator of project {project!r} to change its policy.",
            code="policy_limit",
            param=error.param,
        ) from error


def add(session: Session, project: str, policy: Policy, *, key_id: str) -> ProjectPolicy:
    """Set a project's policy, as a new version.

    Raises:
        Conflict: code `policy_changed`; another request set a version at the same time.
    """
    last = session.scalar(select(func.max(ProjectPolicy.version)).where(ProjectPolicy.project == project))
    row = ProjectPolicy(project=project, version=(last or 0) + 1, policy=policy.model_dump(mode="json"), key_id=key_id)
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(
            "Another request has just set this policy. Get the new version and set yours again.", code="policy_changed"
        ) from error
    session.refresh(row)
    return row


def get(session: Session, project: str, version: int) -> ProjectPolicy:
    """One version.

    Raises:
        NotFound: there is no such version.
    """
    row = session.get(ProjectPolicy, (project, version))
    if row is None:
        raise NotFound(f"The policy of project {project!r} has no version {version}.", param="version")
    return row


def page(
    session: Session, project: str, *, limit: int, before: int | None = None
) -> tuple[Sequence[ProjectPolicy], bool]:
    """Versions below `before`, newest first, and whether there are more."""
    query = select(ProjectPolicy).where(ProjectPolicy.project == project)
    if before is not None:
        query = query.where(ProjectPolicy.version < before)
    rows = session.scalars(query.order_by(ProjectPolicy.version.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
