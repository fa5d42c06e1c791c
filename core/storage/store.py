"""The artifact store: a folder of files that are written atomically.

A file is written to a staging folder, synced and renamed, so that neither a reader nor a crash finds a partial file.
Not here: who may download a file (core.db.artifacts).
"""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path

from core.errors import InvalidInput, NotFound, StorageFull
from core.schemas.results import StoredFile

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")
_STAGING = "staging"
_STALE_SECONDS = 24 * 3600
_FORGOTTEN_SECONDS = 7 * _STALE_SECONDS


@contextmanager
def room() -> Iterator[None]:
    """Turn the system's errors for a full disk into `StorageFull`.

    Raises:
        StorageFull: code `storage_full`.
    """
    try:
        yield
    except OSError as error:
        if not means_full(error):
            raise
        raise full() from error


def means_full(error: Exception) -> bool:
    """Whether an error means that the disk is full; safetensors and tokenizers only mention the error number."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    number = _ERROR_NUMBER.search(str(error))
    return number is not None and int(number[1]) in _NO_ROOM


def full() -> StorageFull:
    """The error for a full disk."""
    return StorageFull("The server's disk is full. Nothing was stored. Free some space and try again.")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, sha256: str) -> None:
    """Check that a stored file is the one that was stored.

    Raises:
        InvalidInput: code `file_changed`.
    """
    if digest(path) != sha256:
        raise InvalidInput(
            "A file has changed on the server's disk since it was uploaded, so it is not used. Upload it again, which "
            "restores it.",
            code="file_changed",
        )


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, as the database row that names the file is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArtifactStore:
    """Files by key in one folder. A key is a relative path of names without special characters."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A temporary folder on the same file system, for files before they are stored.

        Raises:
            StorageFull: the disk is full.
        """
        with room():
            parent = self.root / _STAGING
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def adopt(
        self, key: str, path: Path, *, name: str, media_type: str = "application/octet-stream", gated: bool
    ) -> StoredFile:
        """Move a finished file from staging to its key.

        `gated` is for a job's artifacts: whether the gate decides about downloads of this file.

        Raises:
            StorageFull: the disk is full.
        """
        target = self._target(key)
        size = path.stat().st_size
        stored = StoredFile(name=name, key=key, sha256=digest(path), bytes=size, media_type=media_type, gated=gated)
        with room():
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o640)
            path.replace(target)
            _sync_folder(target.parent)
        return stored

    def put(self, key: str, data: bytes, *, name: str, media_type: str, gated: bool) -> StoredFile:
        """Store bytes; `gated` as in `adopt`.

        Raises:
            StorageFull: the disk is full.
        """
        with self.staging() as folder:
            path = folder / "data"
            path.write_bytes(data)
            return self.adopt(key, path, name=name, media_type=media_type, gated=gated)

    def path(self, key: str) -> Path:
        """The file of a key.

        Raises:
            NotFound: code `artifact_missing`; it was never stored, or has been removed.
        """
        path = self._target(key)
        if not path.is_file():
            raise NotFound(
                f"The artifact store has no file {key!r}. Restore it from a backup, or create the job again.",
                code="artifact_missing",
            )
        return path

    def has(self, key: str, sha256: str | None = None) -> bool:
        """Whether there is a file with this key, and with this digest if one is given."""
        path = self._target(key)
        return path.is_file() and sha256 in (None, digest(path))

    def remove(self, key: str) -> None:
        """Remove the file of a key if it exists."""
        self._target(key).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove staging folders that are older than a day, and checkpoints that are older than a week.

        Killed processes leave them. A job that waits longer than a week starts its run again.
        """
        for path in self.root.glob("jobs/*/checkpoints/*"):
            with suppress(FileNotFoundError):  # its job may end at the same time
                if time.time() - path.stat().st_mtime > _FORGOTTEN_SECONDS:
                    path.unlink()
        for folder in (self.root / _STAGING).glob("*"):
            with suppress(FileNotFoundError):  # another worker may remove it at the same time
                if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    def _target(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or ".." in key:
            raise ValueError(f"{key!r} is not a valid key")
        return self.root / key
