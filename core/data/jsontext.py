"""One JSON text to one Python value, stricter than the standard library and with a place for every complaint.

Covers: syntax errors with line and character, repeated keys, NaN and Infinity, numbers without bounds, deep nesting.
Not here: finding where a row begins and ends in a file (core.data.records), what a row must hold (core.data.layouts).
"""

import json
from collections import Counter
from dataclasses import dataclass

MAX_NUMBER_DIGITS = 1000

_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "text",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class JsonProblem:
    """Why a text is not a JSON value that a row may be."""

    reason: str
    """What is wrong."""
    line: int | None = None
    """Line in the text, from 1; null when the place is unknown."""
    column: int | None = None
    """Character in that line, from 1."""
    syntax: bool = False
    """True when the text is no JSON at all, so that what follows it in an array cannot be trusted."""


class StrictDecoder:
    """Decodes one text after another. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._problem: str | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_int=self._int
        )

    def decode(self, text: str) -> object:
        """The value of `text`, or a `JsonProblem`. Numbers keep their kind, but too long ones not their value."""
        self._problem = None
        try:
            value: object = self._decoder.decode(text)
        except json.JSONDecodeError as error:
            odd = text[error.pos : error.pos + 1]
            which = f" (U+{ord(odd):04X})" if odd and not odd.isprintable() and odd not in "\r\n\t" else ""
            return JsonProblem(f"not valid JSON: {error.msg}{which}", error.lineno, error.colno, syntax=True)
        except RecursionError:
            return JsonProblem("brackets are nested too deeply", syntax=True)
        return value if self._problem is None else JsonProblem(self._problem)

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            self._note(f"duplicate key {clip(twice)} in one object; keep one of them")
        return found

    def _constant(self, name: str) -> float:
        self._note(f"{name} is not JSON; use null or a string")
        return 0.0

    def _int(self, digits: str) -> int:
        if len(digits) > MAX_NUMBER_DIGITS:
            self._note(f"a number has {len(digits)} digits; the limit is {MAX_NUMBER_DIGITS}")
            return 0
        return int(digits)

    def _note(self, problem: str) -> None:
        self._problem = self._problem or problem


def clip(text: str, length: int = 60) -> str:
    """`text` in quotes, cut to `length` characters, control characters and lone surrogates escaped."""
    cut = text if len(text) <= length else text[:length] + "..."
    return ascii(cut) if not cut.isprintable() else repr(cut)


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)
