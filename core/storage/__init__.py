"""Storage of files: uploads, stage results, adapters, reports."""

from core.storage.store import ArtifactStore, check_digest

__all__ = ["ArtifactStore", "check_digest"]
