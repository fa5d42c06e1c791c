"""How a file is written, told from its bytes and never from its name.

Covers: empty and binary files, other encodings, a lone JSON object, and the choice between JSONL, a JSON array and CSV.
Not here: reading the rows (core.data.records), their layout (core.data.layouts).
"""

from typing import BinaryIO

from core.errors import InvalidDataset
from core.schemas.data import FileFormat, RowError

HEAD_BYTES = 64 * 1024
UTF8_BOM = b"\xef\xbb\xbf"
EXPECTED = "Send UTF-8 text: one JSON object on each line, an array of JSON objects, or CSV with a header."

_BLANK = b" \t\r\n"
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\r\x0b\x0c")
_MAGIC = (
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (b"PK\x03\x04", "is a ZIP archive (or an Excel workbook); unpack it, or save the sheet as CSV"),
    (b"PAR1", "is a Parquet file; write its rows as JSONL"),
    (b"ARROW1", "is an Arrow file; write its rows as JSONL"),
    (b"%PDF", "is a PDF"),
    (b"(\xb5/\xfd", "is compressed with Zstandard; unpack it first"),
    (b"BZh", "is compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "is compressed with xz; unpack it first"),
    (b"\xff\xfe", "is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; save it as UTF-8"),
)


def sniff(stream: BinaryIO) -> FileFormat:
    """The format of `stream`, which is left at its first byte after a byte order mark.

    Raises:
        InvalidDataset: the file is empty, blank, binary, in another encoding, or one JSON object over several lines.
    """
    head = stream.read(HEAD_BYTES)
    begin = len(UTF8_BOM) if head.startswith(UTF8_BOM) else 0
    line = 1
    text = head[begin:]
    while text and not text.strip(_BLANK):
        line += text.count(b"\n")
        text = stream.read(HEAD_BYTES)
    stream.seek(begin)
    if not text:
        raise unreadable_file(1, "the file is empty" if len(head) == begin else "the file contains only blank lines")
    _refuse_binary(text)
    content = text.lstrip(_BLANK)
    line += text[: len(text) - len(content)].count(b"\n")
    if content.startswith(b"["):
        return "json"
    if content.startswith(b"{"):
        _refuse_lone_object(content, line)
        return "jsonl"
    return "csv"


def unreadable_file(line: int, reason: str) -> InvalidDataset:
    """The error for a file that cannot be read as rows at all."""
    error = RowError(line=line, column=None, reason=f"{reason}. {EXPECTED}")
    return InvalidDataset(f"line {line}: {error.reason}", errors=(error,), count=1)


def _refuse_binary(text: bytes) -> None:
    for magic, what in _MAGIC:
        if text.startswith(magic):
            raise unreadable_file(1, f"the file {what}")
    # One byte in ten of anything compressed is a control character; every second one of UTF-16 in Latin script is NUL.
    odd = len(text) - len(text.translate(None, b"\0" if _is_utf8(text) else _CONTROL))
    if odd > len(text) // 20 and (text[:1] in _CONTROL or odd > 2):
        raise unreadable_file(1, "the file is binary, or text in another encoding than UTF-8")


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut by the end of the head
    return True


def _refuse_lone_object(content: bytes, line: int) -> None:
    first, newline, rest = content.partition(b"\n")
    following = rest.lstrip(_BLANK)
    if newline and not first.rstrip(_BLANK).endswith(b"}") and following and not following.startswith(b"{"):
        raise unreadable_file(line, "the file is a JSON object spread over several lines, not one row per line")
