"""Prompts for chat models, which reply with one JSON object, and the strict parsing of that object.

Covers: one question about attacks and one about safe look-alikes, the reminder after an unreadable reply, where the
object is in the reply, and what only looks like a verdict. Not here: the words of the questions (rubric, strongreject),
queries and retries (model).
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from core.judges.interface import Case, Ruling
from core.judges.model import Failure
from core.judges.text import shorten, write_judge_prompt
from core.schemas.data import Message

_UNREADABLE = "(This reply was not the one JSON object that was asked for.)"
_REMINDER = "Judge the same answer again. Reply with the one JSON object that was asked for, and nothing else."
_MAX_READ = 20_000
"""Characters at the end of a reply that are parsed."""
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)
_THINK_START, _THINK_END = "<think>", "</think>"


class Form(BaseModel, ABC):
    """Base of the JSON objects that models reply with. Types are strict; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    @abstractmethod
    def ruling(self) -> Ruling:
        """Convert the reply into a ruling."""


@dataclass(frozen=True)
class Question:
    """A judge's task, the question that ends the prompt, and the form of the reply."""

    task: str
    question: str
    form: type[Form]


@dataclass(frozen=True)
class ChatPrompt:
    """Questions in words, answered in JSON; see `JudgePrompt`."""

    version: str
    attack: Question
    safe: Question
    max_new_tokens: int = 300
    truncate: bool = False

    def accepts(self, _safe: bool) -> bool:
        """Always: there is a question for attacks and one for safe look-alikes."""
        return True

    def write(self, case: Case, special_tokens: Iterable[str]) -> tuple[Message, ...]:
        """Write one user turn: some chat templates reject a system turn."""
        about = self._question(case)
        return (Message(role="user", content=write_judge_prompt(about.task, about.question, case, special_tokens)),)

    def remind(self, case: Case, special_tokens: Iterable[str]) -> tuple[Message, ...]:
        """Write the same prompt with a reminder. The reply is left out: it may quote the answer without its marks."""
        return (
            *self.write(case, special_tokens),
            Message(role="assistant", content=_UNREADABLE),
            Message(role="user", content=_REMINDER),
        )

    def parse(self, case: Case, reply: str) -> Ruling | Failure:
        """Parse the JSON object in a reply."""
        filled = parse_form(reply, self._question(case).form, judged=(case.behaviour, case.answer))
        return filled if isinstance(filled, Failure) else filled.ruling()

    def _question(self, case: Case) -> Question:
        return self.safe if case.safe else self.attack


def parse_form(reply: str, form: type[Form], *, judged: Sequence[str]) -> Form | Failure:
    """Parse the filled form in a reply: alone, in a code fence, or in text after the model's reasoning.

    Two different forms are unreadable, since either may be meant. Within text, an object that also occurs in `judged`
    is a quotation and not a verdict. Nothing is parsed after a brace that opens no object, which may quote the answer.
    """
    text = _unfence(reply[-_MAX_READ:])
    objects = _objects(text)
    if [source for source, _ in objects] != [text]:
        known = [_squeeze(each) for each in judged]
        within = _objects(_unfence(_strip_reasoning(text)))
        objects = [each for each in within if not any(_squeeze(each[0]) in whole for whole in known)]
    filled: set[Form] = set()
    for _, value in objects:
        with suppress(ValidationError):
            filled.add(form.model_validate(value))
    if len(filled) == 1:
        return filled.pop()
    return Failure(f"the judge's reply could not be read: {shorten(reply)!r}")


def _unfence(text: str) -> str:
    fenced = _FENCE.fullmatch(text)
    return (fenced[1] if fenced else text).strip()


def _strip_reasoning(text: str) -> str:
    """Return the text after the reasoning; nothing if the reasoning never ends."""
    rest = text.rpartition(_THINK_END)[2]
    return "" if _THINK_START in rest else rest


def _objects(text: str) -> list[tuple[str, dict[str, JsonValue]]]:
    """Parse every outermost object and return it with its source; return none if one of them is broken."""
    decoder = json.JSONDecoder(object_pairs_hook=_reject_duplicates)
    objects: list[tuple[str, dict[str, JsonValue]]] = []
    place = text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):  # not an object; a duplicate key; endless nesting
            return []
        objects.append((text[place:end], value))
        place = text.find("{", end)
    return objects


def _reject_duplicates(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    merged = dict(pairs)
    if len(merged) < len(pairs):
        raise ValueError("duplicate key in one object")
    return merged


def _squeeze(text: str) -> str:
    return "".join(text.split())
