"""GGUF models: converted once into a folder with safetensors weights, which is used like any other.

    cache/
      digests/                      SHA-256 of files that were read before, by path, size and time
      <SHA-256>-<dtype>-<versions>/
        model/                      the converted model
        sha256                      digest over the files of `model`

A conversion runs in a process of its own (core.lm.gguf_process), which needs torch; this module needs none. It holds a
lock, so that several workers convert a file once, and its folder gets its name when it is complete. Not here: checks of
the file's metadata (core.modelfiles.gguf).
"""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import get_ident
from typing import IO

from core.errors import InvalidModel, Unavailable
from core.modelfiles.gguf import open_joined
from core.processes import ROOT, child_environment
from core.schemas.models import GgufSource
from core.storage.store import full, means_full

_CONVERTER = "1"
"""Changes whenever this code converts differently."""
_LIBRARIES = ("transformers", "gguf")
_COMMAND = (sys.executable, "-m", "core.lm.gguf_process")
_LOGGED_CHARACTERS = 4000
_log = logging.getLogger(__name__)


def can_convert() -> bool:
    """Whether this installation has what converting needs."""
    return _versions() is not None and find_spec("torch") is not None


def find_converted(name: str, source: GgufSource) -> Path | None:
    """The folder of a model that was converted before, or None. `name` is the model's name in messages.

    If this installation cannot convert (the API's has no `gguf`), the copy that any worker made is used.

    Raises:
        InvalidModel: code `model_missing` or `gguf_changed`.
    """
    start = f"{_checked_digest(name, source)}-{source.dtype}-"
    if (versions := _versions()) is not None:
        folder = source.cache / f"{start}{versions}" / "model"
        return folder if folder.is_dir() else None
    found = sorted(source.cache.glob(f"{start}*[0-9a-f]/model"), key=lambda folder: folder.stat().st_mtime_ns)
    return found[-1] if found else None


def convert(name: str, source: GgufSource) -> Path:
    """The folder of a model, which is converted unless it was before. `name` is the model's name in messages.

    Raises:
        InvalidModel: code `model_missing`, `gguf_changed`, `gguf_unsupported` or `model_unreadable`.
        Unavailable: code `gguf_missing`, `conversion_failed`, `state_unusable` or `storage_full`.
    """
    if (folder := find_converted(name, source)) is not None:
        return folder
    versions = _versions()
    if versions is None or not can_convert():
        raise Unavailable(
            f"The base model {name!r} is a GGUF file, and this installation cannot convert it: install "
            "securetune[worker].",
            code="gguf_missing",
        )
    target = source.cache / f"{_checked_digest(name, source)}-{source.dtype}-{versions}"
    try:
        source.cache.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.lock")) as lock:
            if not target.is_dir():  # another worker may have converted it while this one waited
                _convert(name, source, target, lock)
    except OSError as error:
        if means_full(error):
            raise full() from error
        raise Unavailable(
            f"The folder for converted models cannot be used: {error.strerror}. Check SECURETUNE_STATE and its "
            "permissions.",
            code="state_unusable",
        ) from error
    return target / "model"


def original_digest(folder: Path, files: str) -> str:
    """SHA-256 of the GGUF file that a folder was converted from. `files` is the digest over the folder's files.

    Raises:
        InvalidModel: code `gguf_changed`; the files are not those that were converted.
    """
    record = folder.parent / "sha256"
    if not record.is_file() or record.read_text().strip() != files:
        raise InvalidModel(
            f"The converted copy {folder.parent.name} of a GGUF model has changed since it was made. Delete this "
            "folder in `converted` of the state folder; the next job converts the model again.",
            code="gguf_changed",
            param="base_model",
        )
    return folder.parent.name.partition("-")[0]


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a model's files, named chat templates included, in hex."""
    total = sha256()
    paths = [*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.relative_to(folder)} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def joined_digest(paths: Sequence[Path]) -> str:
    """SHA-256 of a file, or of its parts joined in order, in hex.

    Raises:
        OSError: a part cannot be opened.
    """
    total = sha256()
    with open_joined(paths) as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _convert(name: str, source: GgufSource, target: Path, lock: IO[str]) -> None:
    """Convert into a folder beside `target` that only the holder of the lock uses, and rename it."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # a killed conversion may have left it
    part.mkdir()
    try:
        _log.info("Converting the GGUF model %s; this is done once", name)
        done = subprocess.run(
            [*_COMMAND, source.dtype, str(part), *(str(path.absolute()) for path in source.paths)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=child_environment(os.environ),
            pass_fds=(lock.fileno(),),  # the lock is held until this process ends, even if the present one is killed
        )
        if done.returncode != 0:
            _log.error("conversion: %s", done.stderr[-_LOGGED_CHARACTERS:])
            raise _failure(name, done.returncode, done.stdout)
        (part / "sha256").write_text(f"{folder_digest(part / 'model')}\n")
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _failure(name: str, status: int, answer: str) -> InvalidModel | Unavailable:
    """The error of a conversion that failed: the process answers with a code and the rest of a sentence."""
    lines = answer.splitlines()
    if status == 1 and lines:
        code, text = json.loads(lines[-1])
        if code == "storage_full":
            return full()
        return InvalidModel(f"The base model {name!r} {text}", code=code, param="base_model")
    how = "was killed, perhaps because the system ran out of memory" if status < 0 else f"ended with status {status}"
    return Unavailable(
        f"The base model {name!r} could not be converted from GGUF: the process {how}. The log has details.",
        code="conversion_failed",
    )


@contextmanager
def _locked(path: Path) -> Generator[IO[str]]:
    """Hold a lock, for which this waits."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _versions() -> str | None:
    """Digest of what the converted files depend on beside the GGUF file; None without the packages."""
    try:
        known = [_CONVERTER, *(version(name) for name in _LIBRARIES)]
    except PackageNotFoundError:
        return None
    return sha256(" ".join(known).encode()).hexdigest()[:8]


def _checked_digest(name: str, source: GgufSource) -> str:
    """The digest of the GGUF file, compared with the one in the server's list."""
    try:
        found = _digest(source)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise InvalidModel(
            f"The base model {name!r} should be in a file {missing!r}, but there is no such file here. Copy it there, "
            "or correct the server's list.",
            code="model_missing",
            param="base_model",
        ) from error
    except OSError as error:
        raise InvalidModel(
            f"The base model {name!r} has a {Path(str(error.filename or 'file')).name} that cannot be opened "
            f"({error.strerror}). Check its permissions.",
            code="model_unreadable",
            param="base_model",
        ) from error
    if source.sha256 not in (None, found):
        raise InvalidModel(
            f"The base model {name!r} is a GGUF file with the SHA-256 {found}, and the server's list states "
            f"{source.sha256}. Copy the file again, or correct the list.",
            code="gguf_changed",
            param="base_model",
        )
    return found


def _digest(source: GgufSource) -> str:
    """The digest of the GGUF file. It is kept for files that have not changed, because a large one takes seconds.

    Raises:
        OSError: a part cannot be opened.
    """
    seen = [(str(path.absolute()), path.stat()) for path in source.paths]
    state = [(path, each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino) for path, each in seen]
    note = source.cache / "digests" / sha256(json.dumps(state).encode()).hexdigest()
    if note.is_file():
        return note.read_text()
    found = joined_digest(source.paths)
    scratch = note.with_name(f"{note.name}.{os.getpid()}.{get_ident()}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(found)
        scratch.replace(note)
    except OSError as error:  # the note only saves time
        _log.warning("The digest of a GGUF file cannot be kept: %s", error.strerror)
    return found
