"""Bounded reading of a model's files: JSON objects and the headers of safetensors files.

Not here: what their content means (core.modelfiles.config, weights, tokens).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from pydantic_core import from_json

CONFIG_LIMIT = 4 << 20
"""Maximum size of a configuration in bytes."""
TOKENIZER_LIMIT = 128 << 20
"""Maximum size of a tokenizer's files and of an index in bytes; the largest vocabularies in use take 35 MB."""
_HEADER_LIMIT = 100_000_000
"""Maximum size of a safetensors header in bytes, as in the format's own library."""
_LENGTH = struct.Struct("<Q")

JsonObject = Mapping[str, object]


@dataclass(frozen=True)
class Problem:
    """Why a model cannot be used."""

    code: str
    """Stable, for programs."""
    text: str
    """The rest of the sentence that begins with the model's name, and what to do."""


class TensorInfo(NamedTuple):
    """A tensor as a safetensors header describes it."""

    dtype: str
    shape: tuple[int, ...]


def unreadable(file: str, why: str) -> Problem:
    """The problem of a file that cannot be read."""
    return Problem("model_unreadable", f"has a {file} that {why}. Copy the file again from where the model comes from.")


def read_object(path: Path, limit: int) -> JsonObject | Problem:
    """The JSON object in a file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be opened.
    """
    if (size := path.stat().st_size) > limit:
        return unreadable(path.name, f"has {size} bytes, more than the limit of {limit}")
    try:
        found: object = from_json(path.read_bytes(), cache_strings="none")
    except ValueError:
        return unreadable(path.name, "is not valid JSON")
    if not isinstance(found, dict):
        return unreadable(path.name, "is not a JSON object")
    return cast("JsonObject", found)


def read_text(path: Path, limit: int) -> str:
    """A file's text; empty if there is none or it is larger than `limit` bytes.

    Raises:
        OSError: the file cannot be opened.
    """
    if not path.is_file() or path.stat().st_size > limit:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def read_header(path: Path) -> dict[str, TensorInfo] | Problem:
    """The tensors of a safetensors file by name. Only the header is read, and compared with the size of the file.

    Raises:
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if length > _HEADER_LIMIT:
            return unreadable(path.name, "is not a safetensors file")
        if not length or size < _LENGTH.size + length:
            return _cut_off(path.name, size)
        content = file.read(length)
    try:
        found: object = from_json(content, cache_strings="none")
    except ValueError:
        return unreadable(path.name, "is not a safetensors file")
    return _parse_header(path.name, found, size - _LENGTH.size - length)


def _parse_header(name: str, header: object, available: int) -> dict[str, TensorInfo] | Problem:
    if not isinstance(header, dict):
        return unreadable(name, "is not a safetensors file")
    tensors: dict[str, TensorInfo] = {}
    needed = 0
    for key, value in header.items():
        if key == "__metadata__":
            continue
        match value:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(), int(end)]}:
                sizes = tuple(each for each in shape if isinstance(each, int))
                if len(sizes) != len(shape):
                    return unreadable(name, "is not a safetensors file")
                tensors[str(key)] = TensorInfo(dtype, sizes)
                needed = max(needed, end)
            case _:
                return unreadable(name, "is not a safetensors file")
    return tensors if needed <= available else _cut_off(name, available)


def _cut_off(name: str, size: int) -> Problem:
    return Problem(
        "weights_incomplete",
        f"has a {name} that is cut off after {size} bytes. Copy the file again from where the model comes from.",
    )
