"""Queries on datasets. Not here: validating and storing the files (core.orders.upload)."""

import json
from hashlib import sha256

from sqlalchemy.orm import Session

from core.db.models import Dataset
from core.errors import NotFound
from core.schemas.data import ColumnMap, DatasetSummary
from core.schemas.job import DatasetRef


def identity(digest: str, columns: ColumnMap | None) -> str:
    """The id of a dataset: a digest of its bytes and its column map."""
    # Null fields other than `system` are left out, so that ids stay those of versions without these fields.
    names = (
        {name: value for name, value in columns.model_dump().items() if value or name == "system"} if columns else None
    )
    mapping = json.dumps(names, sort_keys=True)
    return "ds_" + sha256(f"{digest}\n{mapping}".encode()).hexdigest()[:24]


def get(session: Session, dataset_id: str, *, param: str | None = None) -> Dataset:
    """One dataset.

    Raises:
        NotFound: there is no dataset with this id. `param` is the field that names it.
    """
    row = session.get(Dataset, dataset_id)
    if row is None:
        raise NotFound(f"There is no dataset {dataset_id!r}. Upload it with POST /datasets.", param=param)
    return row


def ref(row: Dataset) -> DatasetRef:
    """The dataset as the training process needs it."""
    return DatasetRef(
        id=row.id,
        key=row.key,
        sha256=row.sha256,
        columns=ColumnMap.model_validate(row.columns) if row.columns else None,
        summary=DatasetSummary.model_validate(row.summary),
    )
