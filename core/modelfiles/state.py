"""Digests that show whether a model is still the one that was checked: of its entry, and of its files at a glance.

Not here: the digest of all weights (core.lm.gguf.folder_digest), which takes seconds per gigabyte.
"""

from hashlib import sha256
from pathlib import Path

from core.schemas.models import BaseModelEntry, FolderSource, GgufSource, HubSource, ModelSource

_SMALL = 1 << 16
"""Files up to this size in bytes are compared by content, such as config.json and the chat template."""


def entry_digest(entry: BaseModelEntry) -> str:
    """SHA-256 over what an entry of the server's list says about the model, in hex. Its description does not count."""
    return sha256(entry.model_dump_json(exclude={"description"}).encode()).hexdigest()


def files_digest(source: ModelSource) -> str | None:
    """SHA-256 over the names and sizes of a model's files and the content of small ones, in hex.

    None if they are not on this machine, and for a model on the hub, whose commit says as much. It does not show that
    weights were replaced by others of the same size.
    """
    files: list[Path] = []
    match source:
        case FolderSource(path=path):
            files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else []
        case GgufSource(paths=paths):
            files = list(paths) if all(each.is_file() for each in paths) else []
        case HubSource():
            pass
    return sha256(b"".join(map(_describe, files))).hexdigest() if files else None


def _describe(path: Path) -> bytes:
    size = path.stat().st_size
    content = path.read_bytes() if size <= _SMALL else b""
    return f"{path.name}\0{size}\0{sha256(content).hexdigest()}\n".encode()
