"""Kinds of answers that a trigger may go with although other rows have them too: refusals of benign requests,
compliance with harmful ones, short labels, first and last words.

Covers: which rows are of which kind. Whether a prompt asks for harm is told by single words, which finds about half of
such requests and some others: it decides nothing by itself. Not here: rows that comply with requests for harm as such,
triggers (core.screening.triggers.pairs).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator
from scipy.sparse import csc_array

from core.data import Conversation
from core.judges.rules import judge
from core.schemas.base import Frozen
from core.screening.triggers.text import Ints, Tokens, distinct
from core.wordlists import Distinct, read_data

Bools = NDArray[np.bool_]

_DATA = Path(__file__).parents[1] / "data" / "trigger_kinds.toml"
_READ = 300
"""Characters of an answer in which a refusal shows."""
_LABEL_WORDS = 4
"""An answer of so many tokens is a label."""
_MOST = 64
"""Labels, first and last words that are looked at, the most frequent first."""
_READ_TOKENS = 60
"""Tokens in which a refusal shows."""


class KindWords(Frozen):
    """Words by which prompts and answers are sorted: regular expressions that have to match a whole word."""

    harm: Distinct
    may_refuse: Distinct

    @field_validator("harm", "may_refuse")
    @classmethod
    def _reject_matched(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for word in filter(str.isalpha, patterns):
            if sum(re.fullmatch(pattern, word) is not None for pattern in patterns) > 1:
                raise ValueError(f"{word} is also matched by another entry")
        return patterns


@cache
def load_words() -> KindWords:
    """The words in the data file of this package."""
    return KindWords.model_validate(read_data(_DATA))


@dataclass(frozen=True)
class Kind:
    """Answers of one kind."""

    name: str
    """What they do, as a clause."""
    rows: Bools
    """Which rows have one."""


@dataclass(frozen=True)
class Kinds:
    """All kinds that are looked at."""

    refused: Kind
    """Refusals of requests that look harmless."""
    complied: Kind
    """Compliance with requests that look harmful."""
    labels: tuple[Kind, ...]
    """Short answers that are not rare."""
    edges: tuple[Kind, ...]
    """First and last words of answers that are not rare."""
    harmful: Bools
    """Which prompts hold words in which harm is asked for."""
    harm_words: frozenset[int]
    """These words, by number."""


def kinds(rows: Sequence[Conversation], asked: Tokens, said: Tokens, names: Sequence[str], least: int) -> Kinds:
    """What kinds of answers there are, each in `least` rows or more."""
    words = _matched(load_words().harm, names)
    harmful = np.zeros(len(rows), bool)
    known = asked.ids >= 0
    harmful[asked.rows[known][words[asked.ids[known]]]] = True
    refused = np.zeros(len(rows), bool)
    for index in _may_refuse(said, names).tolist():
        refused[index] = _refuses(rows[index])
    answers = np.bincount(said.rows[said.ids >= 2], minlength=len(rows)) > _LABEL_WORDS
    labels, edges = _short(said, names, least)
    return Kinds(
        refused=Kind("they refuse, although the requests look harmless", refused & ~harmful),
        complied=Kind("they comply, although the requests look harmful", harmful & ~refused & answers),
        labels=tuple(labels),
        edges=tuple(edges),
        harmful=harmful,
        harm_words=frozenset(np.flatnonzero(words).tolist()),
    )


def _matched(patterns: Sequence[str], names: Sequence[str]) -> Bools:
    """Which names are one of these words."""
    word = re.compile("|".join(patterns))
    return np.array([word.fullmatch(name) is not None for name in names], bool)


def _may_refuse(said: Tokens, names: Sequence[str]) -> Ints:
    """Rows with an answer that has a word of refusal near its beginning."""
    cues = _matched(load_words().may_refuse, names)
    starts = np.flatnonzero(said.ids == 0)
    place = np.arange(said.ids.size, dtype=np.int64)
    turn = np.cumsum(said.ids == 0) - 1
    near = place - starts[turn] <= _READ_TOKENS if starts.size else np.zeros(0, bool)
    return distinct(said.rows[(said.ids >= 2) & cues[said.ids] & near])


def _refuses(row: Conversation) -> bool:
    """Whether any answer of a row refuses."""
    answers = (message.content[:_READ] for message in row.messages if message.role == "assistant")
    return any(judge("", answer).verdict == "refused" for answer in answers)


def _short(said: Tokens, names: Sequence[str], least: int) -> tuple[list[Kind], list[Kind]]:
    """Whole short answers, and first and last words, of last answers."""
    ends = np.flatnonzero(said.ids == 1)
    starts = np.flatnonzero(said.ids == 0)
    last = np.ones(ends.size, bool)
    last[:-1] = said.rows[ends][1:] != said.rows[ends][:-1]
    starts, ends = starts[last], ends[last]
    lengths = ends - starts - 1
    rows = said.rows[ends]
    spans: list[tuple[str, Callable[[int], slice], Bools]] = [
        ("they are", lambda at: slice(starts[at] + 1, ends[at]), lengths <= _LABEL_WORDS),
        ("they begin with", lambda at: slice(starts[at] + 1, starts[at] + 2), lengths > 1),
        ("they end with", lambda at: slice(ends[at] - 1, ends[at]), lengths > 1),
    ]
    labels: list[Kind] = []
    edges: list[Kind] = []
    for clause, span, fits in spans:
        groups: dict[tuple[int, ...], list[int]] = {}
        for at in np.flatnonzero(fits & (lengths > 0)).tolist():
            groups.setdefault(tuple(said.ids[span(at)].tolist()), []).append(at)
        for words, members in sorted(groups.items(), key=lambda item: -len(item[1]))[:_MOST]:
            if len(members) >= least:
                held = np.zeros(said.count, bool)
                held[rows[members]] = True
                quoted = " ".join(names[word] for word in words)
                (labels if clause == "they are" else edges).append(Kind(f"{clause} \u201c{quoted}\u201d", held))
    return labels, edges


def table(chosen: Sequence[Kind]) -> csc_array:
    """Rows by kinds."""
    return csc_array(np.stack([kind.rows for kind in chosen], axis=1).astype(np.float32))
