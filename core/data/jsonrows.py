"""JSONL and JSON arrays, read as a stream of rows.

Covers: finding where each row begins and ends, so that memory holds one row (at most `MAX_ROW_BYTES`) and one buffer,
whatever the file's size. Not here: decoding a row (core.data.jsontext), what it must hold (core.data.layouts).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from core.data.jsontext import JsonProblem, StrictDecoder
from core.data.records import CHUNK_BYTES, MAX_ROW_BYTES, STOPPED, TOO_LONG, Record, Slice, not_utf8
from core.schemas.data import RowError

# Only these matter for where an element of an array ends: brackets, commas, whole strings, and a string still open.
# An object that holds no other is passed over in one step: the usual file is cut 1.4 times as fast.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT_OBJECT = rb'\{[^"\[\]{}]*+(?:' + _STRING + rb'[^"\[\]{}]*+)*+\}'
_TOKEN = re.compile(_FLAT_OBJECT + b"|" + _STRING + rb'|[\[\]{},"]', re.DOTALL)
_OPEN = "a quote or bracket was left open"
_BLANK = b" \t\r\n"


def read_jsonl(stream: BinaryIO) -> Iterator[Record | RowError]:
    """A record or an error for every line that is not blank."""
    decoder = StrictDecoder()
    line = 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        line += 1
        if len(raw) > MAX_ROW_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(CHUNK_BYTES)
            yield RowError(line=line, column=None, reason=f"{TOO_LONG}; split it")
        elif content := raw.strip(_BLANK):
            if content.endswith(b"},"):
                reason = "the line ends with a comma: write one object on each line without commas, or an array in [ ]"
                yield RowError(line=line, column=None, reason=reason)
                continue
            record, _ = _decode(decoder, Slice(line, raw.index(content) + 1, content))
            yield record


def read_array(stream: BinaryIO) -> Iterator[Record | RowError]:
    """A record or an error for every element; reading stops at the first that is not JSON."""
    return _read_elements(_Elements(stream, array=True))


def read_objects(stream: BinaryIO) -> Iterator[Record | RowError]:
    """A record or an error for every object of a file with one object after the other, over any number of lines."""
    return _read_elements(_Elements(stream, array=False))


def _read_elements(elements: "_Elements") -> Iterator[Record | RowError]:
    decoder = StrictDecoder()
    last = 0
    for item in elements:
        if isinstance(item, RowError):
            yield item
            return
        record, lost = _decode(decoder, item)
        if lost and isinstance(record, RowError):
            yield record.model_copy(update={"reason": f"{record.reason}. {STOPPED}"})
            return
        if isinstance(record, Record):
            # Rows are told apart by their lines: of those that begin on one line, each has the number after the last.
            last = max(record.line, last + 1)
            record = replace(record, line=last)
        yield record


def _decode(decoder: StrictDecoder, item: Slice) -> tuple[Record | RowError, bool]:
    """What a slice holds, and whether it is no JSON at all, so that what follows it in an array cannot be trusted."""
    try:
        text = item.raw.decode()
    except UnicodeDecodeError as error:
        return not_utf8(item, error), False
    value = decoder.decode(text)
    if not isinstance(value, JsonProblem):
        return Record(item.line, value), False
    if value.line is None or value.column is None:
        return RowError(line=item.line, column=None, reason=value.reason), value.syntax
    column = value.column + (item.column - 1 if value.line == 1 else 0)
    line = item.line + value.line - 1
    return RowError(line=line, column=f"character {column}", reason=value.reason), value.syntax


class _Elements:
    """Cuts a JSON array, or objects one after the other, into the bytes of its elements, or an error where it cannot.

    `buffer[start:]` is the element at hand, `at` is where the search for its end goes on, `depth` counts open brackets.
    """

    def __init__(self, stream: BinaryIO, *, array: bool) -> None:
        self._stream = stream
        self._array = array
        self._buffer = b""
        self._start = self._at = self._depth = 0
        self._line = self._column = 1

    def __iter__(self) -> Iterator[Slice | RowError]:
        self._fill()
        return self._iterate_array() if self._array else self._iterate_objects()

    def _iterate_objects(self) -> Iterator[Slice | RowError]:
        while True:
            end = self._find_end()
            item = self._take()
            if len(item.raw) > MAX_ROW_BYTES or (end is None and item.raw):
                what = TOO_LONG if len(item.raw) > MAX_ROW_BYTES else "not valid JSON: the last object is not closed"
                yield RowError(line=item.line, column=None, reason=f"{what}, or {_OPEN}. {STOPPED}")
                return
            if end is None:
                return
            yield item

    def _iterate_array(self) -> Iterator[Slice | RowError]:
        self._pass(self._buffer.index(b"[") + 1)
        first = True
        while True:
            end = self._find_end()
            item = self._take()
            if len(item.raw) > MAX_ROW_BYTES:
                yield RowError(line=item.line, column=None, reason=f"{TOO_LONG}, or {_OPEN}. {STOPPED}")
                return
            if item.raw:
                yield item
            elif end == b"," or (end == b"]" and not first):
                yield self._error("not valid JSON: a comma without a row next to it")
                return
            if end is None:
                yield self._error("not valid JSON: the array is not closed, its last ']' is missing")
                return
            self._pass(1)
            if end == b"]":
                yield from self._check_tail()
                return
            first = False

    def _find_end(self) -> bytes | None:
        """Move `at` to the comma or bracket that ends the element, or to the end of the buffer where none does."""
        while True:
            resume = len(self._buffer)
            for token in _TOKEN.finditer(self._buffer, self._at):
                found = token[0]
                if len(found) > 1:
                    if not self._array and self._depth == 0 and found.startswith(b"{"):
                        self._at = token.end()
                        return found
                    continue
                if found in b"[{":
                    self._depth += 1
                elif found == b'"':
                    resume = token.start()
                    break
                elif self._array and self._depth == 0 and found in b",]":
                    self._at = token.start()
                    return found
                elif found in b"]}":
                    self._depth -= self._depth > 0
                    if not self._array and self._depth == 0:
                        self._at = token.end()
                        return found
            self._at = resume
            if len(self._buffer) - self._start > MAX_ROW_BYTES or not self._fill():
                self._at = len(self._buffer)
                return None

    def _fill(self) -> bool:
        """Drop what was handed on and read more; False at the end of the file."""
        more = self._stream.read(CHUNK_BYTES)
        self._buffer = self._buffer[self._start :] + more
        self._at -= self._start
        self._start = 0
        return bool(more)

    def _take(self) -> Slice:
        """The element from `start` to `at`, without the blanks around it; both then stand behind it."""
        raw = self._buffer[self._start : self._at]
        content = raw.lstrip(_BLANK)
        self._pass(len(raw) - len(content))
        item = Slice(self._line, self._column, content.rstrip(_BLANK))
        self._pass(len(content))
        return item

    def _pass(self, count: int) -> None:
        """Move `start` on, counting lines and columns."""
        end = self._start + count
        lines = self._buffer.count(b"\n", self._start, end)
        self._line += lines
        self._column = end - self._buffer.rfind(b"\n", self._start, end) if lines else self._column + count
        self._start = end
        self._at = max(self._at, end)

    def _check_tail(self) -> Iterator[RowError]:
        while True:
            raw = self._buffer[self._start :]
            content = raw.lstrip(_BLANK)
            self._pass(len(raw) - len(content))
            if content:
                yield self._error("not valid JSON: there is text after the end of the array")
                return
            if not self._fill():
                return

    def _error(self, reason: str) -> RowError:
        return RowError(line=self._line, column=f"character {self._column}", reason=f"{reason}. {STOPPED}")
