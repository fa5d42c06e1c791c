"""Queries on measured speeds. Not here: measuring them (core.meter), estimates from them (core.orders.estimate)."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import Speed
from core.schemas.speeds import MeasuredSpeed, ModelSpeeds

_KEPT = 5
"""Number of measurements of the same work that are compared."""


def add(session: Session, measured: ModelSpeeds, *, job_id: str) -> None:
    """Record speeds that a job measured."""
    common = {"job_id": job_id} | measured.model_dump(exclude={"speeds", "type"})
    session.add_all(Speed(**common, **each.model_dump()) for each in measured.speeds)
    session.flush()


def newest(session: Session) -> list[MeasuredSpeed]:
    """The last measurements of each kind of work with each model, at most 5 of the same, newest first."""
    same = (Speed.model, Speed.device, Speed.stage, Speed.work, Speed.precision, Speed.method)
    number = func.row_number().over(partition_by=same, order_by=Speed.id.desc()).label("number")
    ranked = select(Speed.id, number).subquery()
    rows = session.scalars(
        select(Speed).join(ranked, ranked.c.id == Speed.id).where(ranked.c.number <= _KEPT).order_by(Speed.id.desc())
    )
    return [MeasuredSpeed.model_validate(_fields(row)) for row in rows]


def _fields(row: Speed) -> dict[str, object]:
    return {name: getattr(row, name) for name in MeasuredSpeed.model_fields}
