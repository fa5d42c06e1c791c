"""Storing uploaded files: validated whole, and stored once however often they are uploaded.

Not here: receiving a file (api.uploads), file formats (core.data).
"""

from dataclasses import dataclass
from pathlib import Path

from core.data import promptsets, validate
from core.db import datasets, prompt_sets
from core.db.models import Dataset, PromptSet
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
    key = f"datasets/{upload.sha256[:2]}/{upload.sha256}"
    with transaction(sessions) as session:
        row, new = datasets.add(
            session,
            name=upload.name,
            digest=upload.sha256,
            size=upload.bytes,
            key=key,
            columns=columns,
            summary=summary,
        )
        _adopt(store, key, upload)
    return row, new


def store_prompts(sessions: Sessions, store: ArtifactStore, upload: Upload, layout: Layout) -> tuple[PromptSet, bool]:
    """The prompt set, and whether it is new: the same bytes with the same layout are the same set.

    Raises:
        InvalidDataset: rows that cannot be used.
        StorageFull, Unavailable: nothing was stored.
    """
    summary = promptsets.summarise(upload.path, layout)
    key = f"prompts/{upload.sha256[:2]}/{upload.sha256}"
    with transaction(sessions) as session:
        row, new = prompt_sets.add(
            session, name=upload.name, digest=upload.sha256, size=upload.bytes, key=key, summary=summary
        )
        _adopt(store, key, upload)
    return row, new


def _adopt(store: ArtifactStore, key: str, upload: Upload) -> None:
    """Inside the transaction: a full disk leaves no row, and an unreachable database leaves no file."""
    if not store.has(key):
        store.adopt(key, upload.path, name=upload.name, gated=False)
