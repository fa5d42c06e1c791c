"""Downloads a file completely or not at all: resumed after an interruption, verified by digest, unpacked safely.

Not here: which files exist (securetune.client.service).
"""

import shutil
import tarfile
import tempfile
from base64 import b64decode
from binascii import Error as Base64Error
from hashlib import file_digest
from pathlib import Path, PurePosixPath

import httpx2

from securetune.client.errors import ApiError, from_response

_CHUNK = 2**20


def fetch(http: httpx2.Client, url: str, folder: Path) -> Path:
    """Download `url` into `folder`, resuming an earlier download, and return the verified file.

    Raises:
        ApiError: the service's own error, or code `digest_mismatch`; the data does not match the announced digest.
    """
    announced = http.head(url)
    if announced.is_error:
        # A reply to HEAD has no body: a GET returns the reason.
        raise from_response(http.get(url))
    expected = _digest(announced)
    size = int(announced.headers["content-length"])
    part = folder / f".{expected.hex()[:16]}.part"
    present = part.stat().st_size if part.exists() else 0
    if present < size:
        _append(http, url, part, present, announced.headers["etag"])
    with part.open("rb") as file:
        actual = file_digest(file, "sha256").digest()
    if actual != expected:
        part.unlink()
        raise ApiError(
            "The download is corrupt: its SHA-256 does not match the announced one. Try again.", code="digest_mismatch"
        )
    return part


def unpack(archive: Path, folder: Path) -> list[PurePosixPath]:
    """Unpack a tar archive of regular files and return their names, relative to `folder`.

    An archive with anything else, or with a path outside the folder, is not unpacked at all.

    Raises:
        ApiError: code `unsafe_archive`.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as scratch:
        try:
            with tarfile.open(archive, "r:") as tar:
                names = [_extract(tar, member, Path(scratch)) for member in tar if not member.isdir()]
        except tarfile.TarError as error:
            raise ApiError(f"The archive cannot be read: {error}.", code="unsafe_archive") from error
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(scratch, name).replace(target)
        return names


def _append(http: httpx2.Client, url: str, part: Path, present: int, etag: str) -> None:
    headers = {"range": f"bytes={present}-", "if-range": etag} if present else {}
    with http.stream("GET", url, headers=headers) as response:
        if response.is_error:
            response.read()
            raise from_response(response)
        with part.open("ab" if response.status_code == httpx2.codes.PARTIAL_CONTENT else "wb") as out:
            for chunk in response.iter_bytes(_CHUNK):
                out.write(chunk)


def _digest(response: httpx2.Response) -> bytes:
    """The SHA-256 in `Repr-Digest: sha-256=:<base64>:` (RFC 9530)."""
    for member in response.headers.get("repr-digest", "").split(","):
        algorithm, _, value = member.strip().partition("=")
        if algorithm == "sha-256":
            try:
                return b64decode(value.strip(":"), validate=True)
            except Base64Error:
                break
    raise ApiError("The service did not announce a digest of the file.", code="invalid_reply")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> PurePosixPath:
    """Write a regular file of the archive below `folder`, and return its name."""
    name = PurePosixPath(member.name)
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or name.is_absolute() or ".." in name.parts or not name.parts:
        raise ApiError(
            f"The archive contains {member.name!r}, which is not a regular file below its folder.",
            code="unsafe_archive",
        )
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(source, out)
    return name
