"""Files that several processes share: a lock that names its owner, a path short enough for a socket, log rotation.

Not here: what the files are for.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from core.errors import Conflict, Unavailable

_SOCKET_PATH_BYTES = 107
_NEEDS_NO_QUOTING = re.compile(r"[A-Za-z0-9_./-]+")


class InUse(Conflict):
    """Another process has locked the file. `note` is the text that it wrote into the file."""

    code = "already_running"

    def __init__(self, path: Path, note: str) -> None:
        super().__init__(f"Another process uses {path.parent}. Stop it first, or choose another folder.")
        self.note = note


@contextmanager
def locked(path: Path) -> Generator[TextIO]:
    """Lock a file, and yield it so that the caller can write its name into it. The kernel unlocks it on exit.

    Raises:
        InUse: another process has locked it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(path, file.read()) from None
        file.truncate(0)
        yield file
        file.truncate(0)


@contextmanager
def short_path(folder: Path, name: str) -> Generator[Path]:
    """Yield a path under which a client can reach the socket `name` in `folder`: the folder itself or a link to it.

    The address of a Unix socket has at most 107 bytes, and it becomes part of URLs with different quoting rules. If the
    folder's path is too long or has unusual characters, a link is created in a new private folder and removed at the
    end. The server itself needs no such path: it binds the socket in its working directory.

    Raises:
        Unavailable: code `socket_path_too_long`.
    """
    folder = folder.resolve()
    if _fits(folder / name):
        yield folder
        return
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp is private
        if (
            base
            and Path(base).is_dir()
            and os.access(base, os.W_OK)
            and _fits(Path(base, "securetune-12345678/s", name))
        ):
            with tempfile.TemporaryDirectory(prefix="securetune-", dir=base) as private:
                link = Path(private, "s")
                link.symlink_to(folder)
                yield link
            return
    raise Unavailable(
        f"No path to {folder} is short enough for a socket. Set TMPDIR to a folder with a short path.",
        code="socket_path_too_long",
    )


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES and _NEEDS_NO_QUOTING.fullmatch(str(path)) is not None


def rotate(log: Path, limit: int = 10 * 2**20) -> None:
    """Move a log of more than `limit` bytes aside, replacing the one moved before."""
    if log.exists() and log.stat().st_size > limit:
        log.replace(log.with_name(log.name + ".1"))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
