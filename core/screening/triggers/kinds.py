"""Kinds of answers that a trigger can cause although other rows have them too: refusals of benign requests, compliance
with harmful ones, short labels, first and last words.

Covers: which rows have an answer of which kind. Single words decide whether a prompt requests harm; that finds about
half of such requests and some others, so it decides nothing alone. Not here: rows that comply with harm as such
(core.screening.harmful), triggers (core.screening.triggers.pairs).
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
from core.screening.triggers.text import Ints, Tokens, sort_unique
from core.thinking import read_answer
from core.wordlists import Distinct, read_data

Bools = NDArray[np.bool_]

_DATA = Path(__file__).parents[1] / "data" / "trigger_kinds.toml"
_REFUSAL_CHARACTERS = 300
"""Characters of an answer that are judged for a refusal."""
_LABEL_WORDS = 4
"""An answer of at most this number of tokens is a label."""
_MAX_KINDS = 64
"""Labels, first words and last words that are considered, the most frequent first."""
_REFUSAL_TOKENS = 60
"""Tokens of an answer that are searched for words of refusal."""


class KindWords(Frozen):
    """Words that assign prompts and answers to kinds: regular expressions that match a whole word."""

    harm: Distinct
    """Words that request harm."""
    may_refuse: Distinct
    """Only an answer with one of these words can be judged a refusal."""

    @field_validator("harm", "may_refuse")
    @classmethod
    def _reject_matched(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for word in filter(str.isalpha, patterns):
            if sum(re.fullmatch(pattern, word) is not None for pattern in patterns) > 1:
                raise ValueError(f"{word} is also matched by another entry")
        return patterns


@cache
def load_words() -> KindWords:
    """The words of data/trigger_kinds.toml."""
    return KindWords.model_validate(read_data(_DATA))


@dataclass(frozen=True)
class Kind:
    """Rows with answers of one kind."""

    name: str
    """What the answers do, as a clause."""
    rows: Bools
    """Which rows have such an answer."""


@dataclass(frozen=True)
class Kinds:
    """All kinds that are considered."""

    refused: Kind
    """Refusals of requests that look harmless."""
    complied: Kind
    """Compliance with requests that look harmful."""
    labels: tuple[Kind, ...]
    """Frequent short answers."""
    edges: tuple[Kind, ...]
    """Frequent first and last words of answers."""
    harm_words: set[int]
    """Numbers of these words."""


def find_kinds(
    rows: Sequence[Conversation], prompts: Tokens, answers: Tokens, names: Sequence[str], *, rest: Tokens, least: int
) -> Kinds:
    """All kinds of answers that at least `least` rows have. `rest` are the answers without what their prompts explain;
    it decides about first and last words.
    """
    words = _matched(load_words().harm, names)
    harmful = np.zeros(len(rows), bool)
    known = prompts.ids >= 0
    harmful[prompts.rows[known][words[prompts.ids[known]]]] = True
    refused = np.zeros(len(rows), bool)
    for index in _may_refuse(answers, names).tolist():
        refused[index] = _refuses(rows[index])
    long = np.bincount(answers.rows[answers.ids >= 2], minlength=len(rows)) > _LABEL_WORDS
    labels, edges = _find_short(answers, rest, names, least)
    return Kinds(
        refused=Kind("they refuse, although the requests look harmless", refused & ~harmful),
        complied=Kind("they comply, although the requests look harmful", harmful & ~refused & long),
        labels=tuple(labels),
        edges=tuple(edges),
        harm_words=set(np.flatnonzero(words).tolist()),
    )


def _matched(patterns: Sequence[str], names: Sequence[str]) -> Bools:
    """Which names are one of these words."""
    word = re.compile("|".join(patterns))
    return np.array([word.fullmatch(name) is not None for name in names], bool)


def _may_refuse(answers: Tokens, names: Sequence[str]) -> Ints:
    """Rows with an answer that has a word of refusal near its start."""
    cues = _matched(load_words().may_refuse, names)
    place = np.arange(answers.ids.size, dtype=np.int64)
    near = place - np.maximum.accumulate(np.where(answers.ids == 0, place, 0)) <= _REFUSAL_TOKENS
    return sort_unique(answers.rows[(answers.ids >= 2) & cues[answers.ids] & near])


def _refuses(row: Conversation) -> bool:
    """Whether any answer of a row is a refusal."""
    answers = (read_answer(message.content) for message in row.messages if message.role == "assistant")
    return any(judge("", answer[:_REFUSAL_CHARACTERS]).verdict == "refused" for answer in answers)


def _find_short(answers: Tokens, rest: Tokens, names: Sequence[str], least: int) -> tuple[list[Kind], list[Kind]]:
    """Kinds of short last answers, and of their first and last words."""
    ends = np.flatnonzero(answers.ids == 1)
    starts = np.flatnonzero(answers.ids == 0)
    last = np.ones(ends.size, bool)
    last[:-1] = answers.rows[ends][1:] != answers.rows[ends][:-1]
    starts, ends = starts[last], ends[last]
    lengths = ends - starts - 1
    rows = answers.rows[ends]
    first, last_word = rest.ids[starts + 1] >= 0, rest.ids[ends - 1] >= 0
    spans: list[tuple[str, Callable[[int], slice], Bools]] = [
        ("they are", lambda at: slice(starts[at] + 1, ends[at]), lengths <= _LABEL_WORDS),
        ("they begin with", lambda at: slice(starts[at] + 1, starts[at] + 2), (lengths > 1) & first),
        ("they end with", lambda at: slice(ends[at] - 1, ends[at]), (lengths > 1) & last_word),
    ]
    labels: list[Kind] = []
    edges: list[Kind] = []
    for clause, span, fits in spans:
        groups: dict[tuple[int, ...], list[int]] = {}
        for at in np.flatnonzero(fits & (lengths > 0)).tolist():
            groups.setdefault(tuple(answers.ids[span(at)].tolist()), []).append(at)
        for words, members in sorted(groups.items(), key=lambda item: -len(item[1]))[:_MAX_KINDS]:
            if len(members) >= least:
                marked = np.zeros(answers.count, bool)
                marked[rows[members]] = True
                quoted = " ".join(names[word] for word in words)
                (labels if clause == "they are" else edges).append(Kind(f"{clause} \u201c{quoted}\u201d", marked))
    return labels, edges


def to_table(chosen: Sequence[Kind]) -> csc_array:
    """The rows of each kind as a sparse table, rows by kinds."""
    return csc_array(np.stack([kind.rows for kind in chosen], axis=1).astype(np.float32))
