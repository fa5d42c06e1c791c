"""Queries on events and figures of a job. A worker checks its claim before it writes any (core.db.jobs.fence).

Not here: the job's own row (core.db.jobs), its files (core.db.artifacts).
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Event, Score
from core.schemas.evaluation import Figure
from core.schemas.events import JobEvent

_SWEEP_LOCK = 0x5EC0_7013
_CHANGE = {"value": "change", "n": "change_n", "low": "change_low", "high": "change_high"}
"""Columns of a figure's change, by field of `Change`."""


def add_event(session: Session, job_id: str, attempt: int, event: JobEvent) -> None:
    """Add an event to a job."""
    data = event.model_dump(mode="json", exclude={"type"})
    session.add(Event(job_id=job_id, attempt=attempt, type=event.type, data=data))


def events(session: Session, job_id: str, *, after: int, limit: int) -> tuple[Sequence[Event], bool]:
    """Events with an id above `after`, oldest first, and whether there are more."""
    rows = session.scalars(
        select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit + 1)
    ).all()
    return rows[:limit], len(rows) > limit


def put_figures(session: Session, job_id: str, figures: Iterable[Figure]) -> None:
    """Store figures; a figure that exists already, because a stage ran again, is replaced."""
    # PostgreSQL rejects a statement that names a row twice, so the last of several figures with one name is stored.
    named = {(each.run, each.suite, each.metric, each.judge): each for each in figures}
    if not named:
        return
    statement = insert(Score).values([{"job_id": job_id, **_columns(figure)} for figure in named.values()])
    session.execute(
        statement.on_conflict_do_update(
            constraint="pk_scores",
            set_={column.name: column for column in statement.excluded if not column.primary_key},
        )
    )


def figures(session: Session, job_id: str) -> list[Figure]:
    """The figures measured so far, by run and suite."""
    rows = session.scalars(
        select(Score).where(Score.job_id == job_id).order_by(Score.run, Score.suite, Score.metric, Score.judge)
    )
    return [_figure(row) for row in rows]


def _columns(figure: Figure) -> dict[str, object]:
    columns = figure.model_dump(exclude={"change"})
    change = figure.change.model_dump() if figure.change else {}
    return columns | {column: change.get(name) for name, column in _CHANGE.items()}


def _figure(row: Score) -> Figure:
    change = {name: getattr(row, column) for name, column in _CHANGE.items()}
    named = {name: getattr(row, name) for name in Figure.model_fields}
    return Figure.model_validate(named | {"change": None if row.change is None else change})


def try_sweep_lock(session: Session) -> bool:
    """Take the sweep lock until the end of the transaction; False if another worker holds it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))))
