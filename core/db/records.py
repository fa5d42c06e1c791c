"""What a running job leaves in the database: events, scores, artifacts. A worker fences before it writes any.

Not here: the job's own row (core.db.jobs).
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Artifact, Event, Score
from core.errors import NotFound
from core.spec.events import JobEvent
from core.spec.results import Figure, StoredFile

_SWEEP_LOCK = 0x5EC0_7013


def add_event(session: Session, job_id: str, attempt: int, event: JobEvent) -> None:
    """Append to the job's events."""
    data = event.model_dump(mode="json", exclude={"type"})
    session.add(Event(job_id=job_id, attempt=attempt, type=event.type, data=data))


def events(session: Session, job_id: str, *, after: int, limit: int) -> tuple[Sequence[Event], bool]:
    """Events with an id above `after`, oldest first, and whether there are more."""
    rows = session.scalars(
        select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit + 1)
    ).all()
    return rows[:limit], len(rows) > limit


def put_figures(session: Session, job_id: str, figures: Iterable[Figure]) -> None:
    """Store figures; one that is there already (a stage was done again) is replaced."""
    # PostgreSQL refuses one statement that names a row twice: of two figures with one name the later counts.
    named = {(each.arm, each.suite, each.metric, each.judge): each for each in figures}
    if not named:
        return
    statement = insert(Score).values([{"job_id": job_id, **figure.model_dump()} for figure in named.values()])
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id", "arm", "suite", "metric", "judge"],
            set_={name: statement.excluded[name] for name in ("value", "n", "undecided", "low", "high")},
        )
    )


def figures(session: Session, job_id: str) -> list[Figure]:
    """The figures known so far, by arm and suite."""
    rows = session.scalars(
        select(Score).where(Score.job_id == job_id).order_by(Score.arm, Score.suite, Score.metric, Score.judge)
    )
    return [Figure.model_validate({name: getattr(row, name) for name in Figure.model_fields}) for row in rows]


def put_artifacts(session: Session, job_id: str, files: Iterable[StoredFile]) -> None:
    """Make a finished job's files known."""
    session.add_all(Artifact(job_id=job_id, **file.model_dump()) for file in files)


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """A job's files, by name; none before it has succeeded."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact:
    """One file of a job.

    Raises:
        NotFound: code `artifact_not_found`.
    """
    row = session.get(Artifact, (job_id, name))
    if row is None:
        raise NotFound(f"Job {job_id} has no file {name!r}.", code="artifact_not_found", param="name")
    return row


def try_sweep_lock(session: Session) -> bool:
    """Become the one who sweeps, until this transaction ends; False when another worker is at it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))))
