"""A GGUF file, checked by its metadata without loading it: can it be converted and tuned?

Only the header, the metadata and the table of tensors are read, with limits on their size, so the API can check a file
when a job is ordered. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Not here: converting
(core.lm.gguf), what only the conversion shows (core.lm.gguf_process).
"""

import io
import struct
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Buffer, override

from core.modelfiles.reading import Problem

ARCHITECTURES = frozenset({
    "falcon", "gemma2", "gemma3", "gpt2", "lfm2", "llama", "mistral", "nemotron", "phi3", "qwen2", "qwen2moe", "qwen3",
    "qwen35", "qwen35moe", "qwen3moe", "stablelm", "starcoder2",
})  # fmt: skip
"""Architectures of causal language models that transformers reads from GGUF; a test compares them with transformers."""
_MAX_BYTES = 256 << 20
"""Maximum size of the metadata and the table of tensors in bytes; the largest vocabularies in use take 20 MB."""
_MAX_ENTRIES = 1 << 24
"""Maximum number of keys, tensors, or elements of an array."""
_MAX_DIMENSIONS = 8
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The types of values of a fixed size, in the notation of `struct`."""
_STRING, _ARRAY = 8, 9
_SCALED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that change the positions of a model, which transformers does not read."""


@dataclass(frozen=True)
class GgufHeader:
    """What a file says about itself."""

    values: Mapping[str, object]
    """Metadata by key; an array is its number of elements."""
    tensors: frozenset[str]
    """Names of the tensors."""

    @property
    def architecture(self) -> str:
        """The architecture as the file names it; empty if it does not."""
        return str(self.values.get("general.architecture", ""))


class _Malformed(Exception):
    """The file cannot be read as GGUF; the message continues `has a FILE that`."""


class _Joined(io.RawIOBase):
    """Files read one after the other as one."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = list(files)

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        while self._files:
            part = self._files[0].read(len(view))
            if part:
                view[: len(part)] = part
                return len(part)
            self._files.pop(0)
        return 0


@contextmanager
def open_joined(paths: Sequence[Path]) -> Generator[io.BufferedReader]:
    """Open the parts of a file as one, for reading from start to end.

    Raises:
        OSError: a part cannot be opened.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
        yield io.BufferedReader(_Joined(files), 1 << 20)


def check_gguf(paths: Sequence[Path], *, tokenizer: bool, own_template: bool) -> Problem | None:
    """The first problem of a file, or of its parts in order. `tokenizer`: it must have one, and with `own_template`
    a chat template too.

    Raises:
        OSError: a part cannot be opened.
    """
    header = read_header(paths)
    if isinstance(header, Problem):
        return header
    if problem := _check_kind(header):
        return problem
    if tokenizer and "tokenizer.ggml.tokens" not in header.values:
        return Problem("tokenizer_missing", "has no tokenizer in its GGUF file. Convert the model with its tokenizer.")
    if tokenizer and own_template and not header.values.get("tokenizer.chat_template"):
        return Problem(
            "no_chat_template",
            "has no chat template in its GGUF file, so it is not clear how to format its prompts. Use a file with the "
            'template that the model is served with, or set chat_template = "plain" in its entry in the server\'s list '
            "of models.",
        )
    return None


def read_header(paths: Sequence[Path]) -> GgufHeader | Problem:
    """The metadata and the names of the tensors of a file, or of its parts in order.

    Raises:
        OSError: a part cannot be opened.
    """
    name = paths[0].name
    with open_joined(paths) as file:
        try:
            return _Reader(file).read()
        except _Malformed as error:
            return Problem(
                "model_unreadable", f"has a {name} that {error}. Copy the file again from where the model comes from."
            )


def _check_kind(header: GgufHeader) -> Problem | None:
    name = header.architecture[:40]
    if name not in ARCHITECTURES:
        described = f"is a GGUF file of the architecture {name!r}" if name else "is a GGUF file without an architecture"
        return _unsupported(
            f"{described}, which cannot be converted. Architectures: {', '.join(sorted(ARCHITECTURES))}."
        )
    parts = header.values.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        return _unsupported(
            f"is one of {parts} files that llama-gguf-split made. Join them with `llama-gguf-split --merge`, and list "
            "the result."
        )
    scaling = header.values.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none" or not header.tensors.isdisjoint(_SCALED):
        return _unsupported(
            "is a GGUF file with scaled rotary positions (rope scaling), which transformers does not read from GGUF: "
            "the converted model would compute something else. Use the model with safetensors weights."
        )
    return None


def _unsupported(text: str) -> Problem:
    return Problem("gguf_unsupported", text)


class _Reader:
    """Reads from start to end, and never more than the limit."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._left = _MAX_BYTES

    def read(self) -> GgufHeader:
        if self._file.read(4) != b"GGUF":
            raise _Malformed("is not a GGUF file")
        version = self._number("I")
        if version not in (2, 3):
            raise _Malformed(f"is GGUF of version {version}, and only versions 2 and 3 are read")
        tensors, keys = self._count(), self._count()
        values = dict(self._pair() for _ in range(keys))
        return GgufHeader(values, frozenset(self._tensor() for _ in range(tensors)))

    def _pair(self) -> tuple[str, object]:
        key, kind = self._text(), self._number("I")
        return key, self._value(kind)

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(self._format(kind))
        inner, count = self._number("I"), self._count()
        if inner == _STRING:
            for _ in range(count):
                self._take(self._number("Q"))
        else:
            self._take(count * struct.calcsize(self._format(inner)))
        return count

    def _tensor(self) -> str:
        name, dimensions = self._text(), self._number("I")
        if dimensions > _MAX_DIMENSIONS:
            raise _Malformed(f"has a tensor of {dimensions} dimensions")
        self._take(8 * dimensions + 4 + 8)  # sizes, type, offset
        return name

    def _format(self, kind: int) -> str:
        if kind not in _FORMATS:
            raise _Malformed(f"has metadata of the unknown type {kind}")
        return _FORMATS[kind]

    def _text(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", errors="replace")

    def _count(self) -> int:
        count = self._number("Q")
        if count > _MAX_ENTRIES:
            raise _Malformed(f"states {count} entries in its metadata, more than the limit of {_MAX_ENTRIES}")
        return count

    def _number(self, kind: str) -> int:
        return struct.unpack(f"<{kind}", self._take(struct.calcsize(kind)))[0]

    def _take(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise _Malformed(f"has more than {_MAX_BYTES} bytes of metadata")
        content = self._file.read(size)
        if len(content) < size:
            raise _Malformed("is cut off in its metadata")
        return content
