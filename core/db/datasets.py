"""Queries on datasets."""

import json
from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Dataset
from core.errors import InvalidInput, NotFound
from core.schemas.data import ColumnMap, DatasetSummary
from core.schemas.job import DatasetRef


def identity(digest: str, columns: ColumnMap | None) -> str:
    """The id of these bytes read with these columns."""
    mapping = json.dumps(columns.model_dump() if columns else None, sort_keys=True)
    return "ds_" + sha256(f"{digest}\n{mapping}".encode()).hexdigest()[:24]


def add(
    session: Session,
    *,
    name: str,
    digest: str,
    size: int,
    key: str,
    columns: ColumnMap | None,
    summary: DatasetSummary,
) -> tuple[Dataset, bool]:
    """The dataset's row, and whether it is new; the same upload again finds the first one's row."""
    dataset_id = identity(digest, columns)
    inserted = session.execute(
        insert(Dataset)
        .values(
            id=dataset_id,
            name=name,
            sha256=digest,
            bytes=size,
            key=key,
            columns=columns.model_dump() if columns else None,
            summary=summary.model_dump(),
        )
        .on_conflict_do_nothing()
        .returning(Dataset.id)
    ).first()
    return get(session, dataset_id), inserted is not None


def get(session: Session, dataset_id: str, *, param: str | None = None) -> Dataset:
    """One dataset.

    Raises:
        NotFound: there is none of this id.
    """
    row = session.get(Dataset, dataset_id)
    if row is None:
        raise NotFound(f"There is no dataset {dataset_id!r}: upload it with POST /datasets.", param=param)
    return row


def page(session: Session, *, limit: int, after: str | None = None) -> tuple[Sequence[Dataset], bool]:
    """Datasets, newest first, and whether there are more. `after` is the id of the last one of the page before.

    Raises:
        InvalidInput: code `unknown_cursor`, when `after` is no dataset.
    """
    query = select(Dataset).order_by(Dataset.created_at.desc(), Dataset.id.desc()).limit(limit + 1)
    if after is not None:
        last = session.get(Dataset, after)
        if last is None:
            raise InvalidInput(f"`after` names no dataset: {after!r}.", code="unknown_cursor", param="after")
        query = query.where(tuple_(Dataset.created_at, Dataset.id) < tuple_(last.created_at, last.id))
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def ref(row: Dataset) -> DatasetRef:
    """What the training process needs to know of it."""
    return DatasetRef(
        id=row.id,
        key=row.key,
        sha256=row.sha256,
        columns=ColumnMap.model_validate(row.columns) if row.columns else None,
        summary=DatasetSummary.model_validate(row.summary),
    )
