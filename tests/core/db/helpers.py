"""A dataset's row for the tests of the queries. Not here: fixtures (tests/core/db/conftest.py)."""

from core.db import datasets
from core.db.models import Dataset
from core.db.rows import add_upload
from core.db.session import Session
from core.schemas.data import ColumnMap, DatasetSummary

SUMMARY = DatasetSummary(
    file_format="jsonl",
    row_format="messages",
    rows=2,
    turns=4,
    assistant_turns=2,
    characters=40,
    longest_row_characters=20,
)


def add_dataset(
    session: Session, *, digest: str = "0" * 64, columns: ColumnMap | None = None, name: str = "d.jsonl"
) -> tuple[Dataset, bool]:
    """A small dataset's row."""
    return add_upload(
        session,
        Dataset,
        id=datasets.identity(digest, columns),
        name=name,
        sha256=digest,
        bytes=40,
        key="uploads/d",
        columns=columns.model_dump() if columns else None,
        summary=SUMMARY.model_dump(),
    )
