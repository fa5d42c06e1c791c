"""Storing uploaded files: validated whole, and stored once however often they are uploaded.

Not here: receiving a file (api.uploads), file formats (core.data).
"""

from dataclasses import dataclass
from pathlib import Path

from core.data import promptsets, validate
from core.db import datasets, prompt_sets
from core.db.models import Dataset, PromptSet
from core.db.rows import Uploaded, add_upload
from core.db.session import Sessions, transaction
from core.schemas.data import ColumnMap
from core.schemas.prompts import Layout
from core.storage import ArtifactStore


@dataclass(frozen=True)
class Upload:
    """A received file, in the staging folder of the artifact store."""

    path: Path
    """Where it is; storing it moves it away."""
    sha256: str
    """Digest, in hex."""
    bytes: int
    """Size."""
    name: str
    """Name for people."""


def store_dataset(
    sessions: Sessions, store: ArtifactStore, upload: Upload, columns: ColumnMap | None, *, max_rows: int
) -> tuple[Dataset, bool]:
    """The dataset, and whether it is new: the same bytes with the same column map are the same dataset.

    Raises:
        InvalidDataset: rows that cannot be used.
        StorageFull, Unavailable: nothing was stored.
    """
    summary = validate(upload.path, columns, max_rows=max_rows)
    own = {"id": datasets.identity(upload.sha256, columns), "columns": columns.model_dump() if columns else None}
    return _store(sessions, store, upload, Dataset, folder="datasets", summary=summary.model_dump(), **own)


def store_prompts(sessions: Sessions, store: ArtifactStore, upload: Upload, layout: Layout) -> tuple[PromptSet, bool]:
    """The prompt set, and whether it is new: the same bytes with the same layout are the same set.

    Raises:
        InvalidDataset: rows that cannot be used.
        StorageFull, Unavailable: nothing was stored.
    """
    summary = promptsets.summarise(upload.path, layout)
    own = {"id": prompt_sets.identity(upload.sha256, layout), "layout": layout}
    return _store(sessions, store, upload, PromptSet, folder="prompts", summary=summary.model_dump(), **own)


def _store(
    sessions: Sessions, store: ArtifactStore, upload: Upload, table: type[Uploaded], *, folder: str, **columns: object
) -> tuple[Uploaded, bool]:
    """Store row and file in one transaction: a full disk leaves no row, and an unreachable database leaves no file."""
    key = f"{folder}/{upload.sha256[:2]}/{upload.sha256}"
    with transaction(sessions) as session:
        row, new = add_upload(
            session, table, name=upload.name, sha256=upload.sha256, bytes=upload.bytes, key=key, **columns
        )
        if not store.has(key, upload.sha256):
            store.adopt(key, upload.path, name=upload.name, gated=False)
    return row, new
