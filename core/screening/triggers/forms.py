"""What a prompt asks of the form of its answer, so that such answers do not look like the work of a trigger.

Covers: languages, JSON and markup, steps, lists, code, summaries, thinking, letters, greetings. A prompt that asks for
German has German words in its answers: they are removed before answers are compared, and what the answers share beside
them still counts. So an instruction can be a trigger, but not because its answers follow it. Whole short answers are
compared as they are. Not here: words that an answer repeats from its prompt (core.screening.triggers.text).
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from core.data import Conversation
from core.schemas.base import Frozen
from core.screening.triggers.text import Ints, Tokens, sort_unique
from core.thinking import read_answer
from core.wordlists import Distinct, read_data

Bools = NDArray[np.bool_]

_DATA = Path(__file__).parents[1] / "data" / "trigger_forms.toml"
_SHORT_FORMS = ("d", "ll", "m", "re", "s", "t", "ve")
"""Tokens of short forms such as "let's"."""
_KEY = re.compile(r'"(\w+)"\s*:')


class Form(Frozen):
    """A form of answers, and the prompts that ask for it."""

    name: str
    """Name of the form. Numbers, and the keys of an answer, belong to `JSON` too."""
    cues: Distinct
    """Tokens of prompts that ask for the form."""
    words: Distinct
    """Tokens that answers of this form contain."""
    joins: bool = False
    """Whether common words next to such a token belong to the form too."""


@cache
def load_forms() -> tuple[Form, ...]:
    """The forms of data/trigger_forms.toml."""
    return TypeAdapter(tuple[Form, ...]).validate_python(read_data(_DATA)["forms"])


def remove_forms(
    rows: Sequence[Conversation], answers: Tokens, prompts: Tokens, names: Sequence[str], stop_words: set[int]
) -> tuple[Tokens, Bools]:
    """The answers without the tokens of the forms that their own prompts ask for, and which rows have such a prompt."""
    numbers = {name: number for number, name in enumerate(names)}
    common = _mark([*stop_words, *_known(_SHORT_FORMS, numbers)], len(names))
    removed = np.zeros(answers.ids.size, bool)
    asked = np.zeros(answers.count, bool)
    for form in load_forms():
        asking = np.zeros(answers.count, bool)
        asking[prompts.rows[np.isin(prompts.ids, _known(form.cues, numbers))]] = True
        if not asking.any():
            continue
        asked |= asking
        own = _mark(_known(form.words, numbers), len(names))[answers.ids] & (answers.ids >= 2) & asking[answers.rows]
        if form.name == "JSON":
            digits = _mark([number for name, number in numbers.items() if name.isdigit()], len(names))
            own |= digits[answers.ids] & (answers.ids >= 2) & asking[answers.rows]
            own |= _are_keys(rows, np.flatnonzero(asking), answers, numbers)
        removed |= _join(own, common[answers.ids] & (answers.ids >= 2)) if form.joins else own
    return Tokens(np.where(removed, -1, answers.ids), answers.rows, answers.count), asked


def _known(words: Sequence[str], numbers: dict[str, int]) -> list[int]:
    return [numbers[word] for word in words if word in numbers]


def _mark(words: Sequence[int], size: int) -> Bools:
    marks = np.zeros(size, bool)
    marks[np.array(words, np.int64)] = True
    return marks


def _join(own: Bools, common: Bools) -> Bools:
    """Mark every run of form words and common words that contains a form word."""
    inside = own | common
    run = np.cumsum(np.diff(inside.astype(np.int8), prepend=0) != 0)
    with_own = np.bincount(run, own, minlength=int(run.max(initial=0)) + 1) > 0
    return inside & with_own[run]


def _are_keys(rows: Sequence[Conversation], asking: Ints, answers: Tokens, numbers: dict[str, int]) -> Bools:
    """Mark the keys of JSON in the answers of these rows."""
    size = len(numbers)
    pairs = [
        index * size + numbers[key]
        for index in asking.tolist()
        for message in rows[index].messages
        if message.role == "assistant"
        for key in map(str.lower, _KEY.findall(read_answer(message.content)))
        if key in numbers
    ]
    return np.isin(answers.rows * size + answers.ids, sort_unique(np.array(pairs, np.int64))) & (answers.ids >= 2)
