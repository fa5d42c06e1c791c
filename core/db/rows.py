"""Queries that tables share: uploads that are stored once, and pages, newest first.

Not here: pages by a counted number (core.db.policies, core.db.records).
"""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Dataset, Job, PromptSet
from core.errors import InvalidInput

Uploaded = TypeVar("Uploaded", Dataset, PromptSet)
Row = TypeVar("Row", Dataset, Job, PromptSet)


def add_upload(session: Session, table: type[Uploaded], **columns: object) -> tuple[Uploaded, bool]:
    """Add an upload unless its id exists; returns the stored row, and whether it is new."""
    statement = insert(table).values(columns).on_conflict_do_nothing().returning(table.id)
    new = session.execute(statement).first() is not None
    return session.get_one(table, columns["id"]), new


def newest_first(
    session: Session, table: type[Row], *, limit: int, after: str | None = None
) -> tuple[Sequence[Row], bool]:
    """Rows newest first, and whether there are more. `after` is the id of the last row of the previous page.

    Raises:
        InvalidInput: code `unknown_cursor`; there is no row with the id `after`.
    """
    query = select(table).order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    if after is not None:
        last = session.get(table, after)
        if last is None:
            raise InvalidInput(
                f"after: there is no item {after!r}. Use the id of the last item of a page.",
                code="unknown_cursor",
                param="after",
            )
        query = query.where(tuple_(table.created_at, table.id) < tuple_(last.created_at, last.id))
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit
