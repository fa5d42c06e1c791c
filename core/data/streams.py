"""A file as a stream of UTF-8 bytes, whatever its compression and encoding.

Covers: gzip, bzip2, xz and Zstandard with a bound on what comes out, UTF-16 and UTF-32 with or without a byte order
mark, the line ends of old Macs. Not here: the format of the rows (core.data.sniff), encodings that cannot be told from
the bytes, such as Windows-1252: they are reported with the first byte that is not UTF-8.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from core.errors import InvalidDataset, TooLarge
from core.schemas.data import RowError

MAX_UNPACKED_BYTES = 2 * 2**30
"""Largest size of a file after unpacking."""
HEAD_BYTES = 64 * 1024
EXPECTED = "Send text with one JSON object on each line, an array of JSON objects, CSV with a header, Parquet or Arrow."

_CHUNK_BYTES = 1024 * 1024
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\r")


def _open_zstd(stream: BinaryIO) -> BinaryIO:
    import pyarrow as pa  # noqa: PLC0415 - only such files need it

    return cast("BinaryIO", pa.CompressedInputStream(stream, "zstd"))


_PACKED: dict[bytes, Callable[[BinaryIO], BinaryIO]] = {
    b"\x1f\x8b": lambda stream: cast("BinaryIO", gzip.GzipFile(fileobj=stream)),
    b"(\xb5/\xfd": _open_zstd,
    b"BZh": lambda stream: cast("BinaryIO", bz2.BZ2File(stream)),
    b"\xfd7zXZ": lambda stream: cast("BinaryIO", lzma.LZMAFile(stream)),  # noqa: SIM115 - `_copy` reads it to its end
}
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def unreadable_file(line: int, reason: str) -> InvalidDataset:
    """The error for a file that cannot be read as rows at all."""
    error = RowError(line=line, column=None, reason=f"{reason}. {EXPECTED}")
    return InvalidDataset(f"line {line}: {error.reason}", errors=(error,), count=1)


@contextmanager
def open_utf8(path: Path) -> Generator[BinaryIO]:
    """The content of a file, unpacked and in UTF-8, at its beginning. It can seek.

    Raises:
        InvalidDataset: the file is damaged, or is not text in the encoding that its first bytes announce.
        TooLarge: it unpacks to more than `MAX_UNPACKED_BYTES`.
    """
    with path.open("rb") as file:
        head = _peek(file)
        unpack = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
        if unpack is None:
            with _in_utf8(file) as stream:
                yield stream
            return
        with TemporaryFile() as unpacked:
            try:
                _copy(unpack(file).read, unpacked)
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise unreadable_file(1, f"the compressed file is damaged: {error}") from error
            with _in_utf8(unpacked) as stream:
                yield stream


@contextmanager
def _in_utf8(file: BinaryIO) -> Generator[BinaryIO]:
    file.seek(0)
    head = _peek(file)
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None) or _encoding_by_zeros(head)
    old_mac = encoding is None and b"\r" in head and b"\n" not in head and b"\0" not in head
    if encoding is None and not old_mac:
        yield file
        return
    text = io.TextIOWrapper(cast("io.BufferedReader", file), encoding or "utf-8", newline=None if old_mac else "")
    with TemporaryFile() as recoded:
        try:
            _copy(lambda size: text.read(size).encode(), recoded)
        except UnicodeError as error:
            raise unreadable_file(1, f"the file is not valid {(encoding or 'utf-8').upper()}: {error}") from error
        finally:
            text.detach()
        yield recoded


def _encoding_by_zeros(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: every second byte of Latin text is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half < 2 or max(even, odd) < 0.6 * half or min(even, odd) > 0.05 * half:
        return None
    letters = head[0::2] if odd > even else head[1::2]
    if len(letters.translate(None, _CONTROL)) < 0.95 * len(letters):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _peek(file: BinaryIO) -> bytes:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head


def _copy(read: Callable[[int], bytes], target: BinaryIO) -> None:
    size = 0
    while chunk := read(_CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_UNPACKED_BYTES:
            raise TooLarge(f"The file unpacks to more than {MAX_UNPACKED_BYTES // 2**30} GiB. Split it.", param="file")
        target.write(chunk)
    target.seek(0)
