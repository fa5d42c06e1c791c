"""Storage of files: uploads, stage results, adapters, reports."""

from core.storage.store import ArtifactStore

__all__ = ["ArtifactStore"]
