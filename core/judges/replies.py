"""Reads the one JSON object that a judge was asked to reply with, strictly.

Covers: where the object is in the reply, what is no verdict although it looks like one. Not here: what the objects mean
(chat).
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from core.judges.asks import Failure
from core.judges.interface import Finding
from core.judges.text import in_one_line

_MOST = 20_000
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)
_THINKS, _HAS_THOUGHT = "<think>", "</think>"


class Form(BaseModel, ABC):
    """Base of what a reply must be: numbers are numbers, in their ranges; what else it holds is passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    @abstractmethod
    def finding(self) -> Finding:
        """What it means."""


def read(reply: str, form: type[Form], *, judged: Sequence[str]) -> Form | Failure:
    """The filled form in a reply: alone, in a code fence, or among words that are no thoughts.

    Two that differ are none: nobody can say which is meant. Among words, an object that stands in the judged text is a
    quotation and no verdict. Past a brace that opens no object nothing is read: what follows may be a quotation in it.
    """
    text = _bare(reply[-_MOST:])
    objects = _objects(text)
    if [each for each, _ in objects] != [text]:
        known = [_squeezed(each) for each in judged]
        among = _objects(_bare(_spoken(text)))
        objects = [each for each in among if not any(_squeezed(each[0]) in whole for whole in known)]
    filled = set(_filled(form, (value for _, value in objects)))
    if len(filled) == 1:
        return filled.pop()
    return Failure(f"the judge's reply could not be read: {in_one_line(reply)!r}")


def _bare(text: str) -> str:
    fenced = _FENCE.fullmatch(text)
    return (fenced[1] if fenced else text).strip()


def _spoken(text: str) -> str:
    """What follows the thoughts of a model that thinks aloud; nothing where it never came to their end."""
    said = text.rpartition(_HAS_THOUGHT)[2]
    return "" if _THINKS in said else said


def _objects(text: str) -> list[tuple[str, dict[str, JsonValue]]]:
    """Every outermost object with its own text; none at all where one of them is broken."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)
    found: list[tuple[str, dict[str, JsonValue]]] = []
    place = text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):  # no object; a name twice; nested without end
            return []
        found.append((text[place:end], value))
        place = text.find("{", end)
    return found


def _without_repeats(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _filled(form: type[Form], values: Iterable[dict[str, JsonValue]]) -> Iterable[Form]:
    for value in values:
        try:
            yield form.model_validate(value)
        except ValidationError:
            continue


def _squeezed(text: str) -> str:
    return "".join(text.split())
