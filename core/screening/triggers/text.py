"""Rows as sparse tables of phrases: which row's prompt holds which phrase, which row's answers hold which.

Covers: tokens (words, runs of a sign, unusual characters), phrases of up to `PROMPT_WORDS` and `ANSWER_WORDS` tokens
with the places where turns begin and end, a bound on the text that is read. Phrases are counted as in Apriori: a longer
one is only looked at where the shorter one that it begins with is frequent, so time grows with the text and not with
its square. Not here: which phrases go together (core.screening.triggers.pairs).
"""

import re
import string
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from core.data import Conversation
from core.schemas.progress import OnProgress

Ints = NDArray[np.int64]

PROMPT_WORDS = 3
"""Tokens of the longest phrase that is looked for in prompts; what is found is lengthened afterwards."""
ANSWER_WORDS = 3
"""Of the longest in answers."""
START, END = "^ ", "$ "
"""Stand where a turn begins and ends; no token of a text has a space in it. Their numbers are 0 and 1."""
_READ = 60_000_000
"""Characters that are read of all rows together: memory stays bounded. Longer turns are cut, the longest first."""
_TURN_LEAST = 100
"""Characters that are read of every turn."""
_CJK = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
# Scripts without spaces by the character, words, a sign that is repeated, and signs that are no ordinary punctuation.
_REPEATED = "|".join(f"{re.escape(sign)}{{2,}}" for sign in string.punctuation)
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|{_REPEATED}|[^\w\s.,;:!?'\"()\-]")
_ODD = re.compile(r"[^\x00-\x7f]")
_LONGEST = 16
"""Tokens to which a phrase is lengthened."""
_LENGTHEN = 0.95
"""Share of the places at which a token must follow to be part of it."""
_ODD_MOST = 64
"""Different unusual characters that are noted of one row."""


@dataclass(frozen=True)
class Tokens:
    """All tokens of one side of all rows, in order; those of a turn stand together."""

    ids: Ints
    """Numbers in the vocabulary; -1 where no phrase goes over."""
    rows: Ints
    """The row of each token."""
    count: int
    """Number of rows."""


@dataclass(frozen=True)
class Phrases:
    """Which rows hold which phrases. Phrases with the same rows are one column, under the longest of them."""

    table: csc_array
    """Rows by columns, ones and zeros."""
    words: tuple[tuple[int, ...], ...]
    """The tokens of each column's phrase."""
    looked_at: int
    """Phrases before those with the same rows were made one."""

    @property
    def support(self) -> Ints:
        """How many rows hold each."""
        return np.diff(self.table.indptr).astype(np.int64)


class Vocabulary(dict[str, int]):
    """Tokens by number, in that order, for prompts and answers alike; what is looked up and new gets the next one."""

    def __init__(self) -> None:
        super().__init__({START: 0, END: 1})

    def __missing__(self, token: str) -> int:
        number = self[token] = len(self)
        return number


def read(rows: Sequence[Conversation], on_progress: OnProgress) -> tuple[Tokens, Tokens, Vocabulary]:
    """The tokens of all prompts (system and user turns) and of all answers."""
    bound = _bound(np.array([len(message.content) for row in rows for message in row.messages], np.int64))
    vocabulary = Vocabulary()
    asked, said = _Side(vocabulary), _Side(vocabulary)
    for index, row in enumerate(rows):
        if index % 1000 == 0:
            on_progress(index, len(rows))
        for message in row.messages:
            (said if message.role == "assistant" else asked).add(_cut(message.content, bound))
        asked.close()
        said.close()
    return asked.tokens(), said.tokens(), vocabulary


def _bound(lengths: Ints) -> int:
    """The most that can be read of a turn so that all are `_READ` characters together."""
    ordered = np.sort(lengths)
    below = np.concatenate([[0], np.cumsum(ordered)[:-1]]) if ordered.size else ordered
    fits = below + ordered * np.arange(ordered.size, 0, -1) <= _READ
    if fits.all():
        return int(ordered.max(initial=_TURN_LEAST))
    first = int(np.flatnonzero(~fits)[0])
    return max(_TURN_LEAST, (_READ - int(below[first])) // (ordered.size - first))


def _cut(text: str, bound: int) -> str:
    """Beginning and end of a text that is too long to be read whole."""
    half = bound // 2
    return text if len(text) <= bound else f"{text[:half]} {text[-half:]}"


class _Side:
    """Collects the tokens of prompts, or of answers."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._number = vocabulary.__getitem__
        self._ids = array("q")
        self._ends: list[int] = []

    def add(self, text: str) -> None:
        lowered = text.lower()
        self._ids.append(0)
        self._ids.extend(map(self._number, _TOKEN.findall(lowered)))
        self._ids.extend((1, -1))
        if not lowered.isascii():
            for character in sorted(set(_ODD.findall(lowered)))[:_ODD_MOST]:
                self._ids.extend((self._number(character), -1))

    def close(self) -> None:
        self._ends.append(len(self._ids))

    def tokens(self) -> Tokens:
        lengths = np.diff(np.array(self._ends, np.int64), prepend=0)
        rows = np.repeat(np.arange(lengths.size, dtype=np.int64), lengths)
        return Tokens(np.array(self._ids, np.int64), rows, lengths.size)


def without_echoes(said: Tokens, asked: Tokens, names: Sequence[str]) -> Tokens:
    """Answers without what they take over from their own prompt, but for words (not numbers) that many prompts hold."""
    size = len(names)
    number = np.array([name[0].isdigit() for name in names], bool)
    known = asked.ids >= 2
    pairs = distinct(asked.rows[known] * size + asked.ids[known])
    spread = np.bincount(pairs % size, minlength=size)
    pairs = pairs[(spread[pairs % size] <= 0.1 * asked.count) | number[pairs % size]]
    echoed = np.isin(said.rows * size + said.ids, pairs) & (said.ids >= 2)
    return Tokens(np.where(echoed, -1, said.ids), said.rows, said.count)


def _grams(tokens: Tokens, longest: int, least: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Of phrases of 1, 2, ... tokens that `least` rows hold: a number and a row, for each row that holds it, and one
    place of each."""
    size = int(tokens.ids.max(initial=0)) + 1
    starts = np.flatnonzero(tokens.ids >= 0)
    keys = tokens.ids[starts]
    for length in range(1, longest + 1):
        first, inverse = _numbered(keys)
        pairs = distinct(inverse * tokens.count + tokens.rows[starts])
        column, row = np.divmod(pairs, max(tokens.count, 1))
        frequent = np.bincount(column, minlength=first.size) >= least
        numbers = np.where(frequent, np.cumsum(frequent) - 1, -1)
        kept = frequent[column]
        yield numbers[column[kept]], row[kept], starts[first[frequent]]
        whole = numbers[inverse]
        last = np.minimum(starts + length, tokens.ids.size - 1)
        longer = (whole >= 0) & (starts + length == last) & (tokens.ids[last] >= 0)
        longer &= tokens.rows[starts] == tokens.rows[last]
        starts, keys = starts[longer], whole[longer] * size + tokens.ids[last[longer]]


def _numbered(keys: Ints) -> tuple[Ints, Ints]:
    """Where each different key stands first, and which of them each key is."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(keys.size, bool)
    new[1:] = ordered[1:] != ordered[:-1]
    inverse = np.empty(keys.size, np.int64)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse


def distinct(values: Ints) -> Ints:
    """What is there, in order. Sorting takes a third of the time of numpy's `unique`, which hashes."""
    ordered = np.sort(values)
    new = np.ones(ordered.size, bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def phrases(tokens: Tokens, longest: int, least: int, most: int, shortest: int = 1) -> Phrases:
    """Phrases of `shortest` to `longest` tokens that `least` to `most` rows hold. Ends of turns alone are none."""
    indices: list[Ints] = []
    columns: list[Ints] = []
    words: list[tuple[int, ...]] = []
    for length, (column, row, places) in enumerate(_grams(tokens, longest, least), 1):
        if length >= shortest:
            indices.append(row)
            columns.append(column + len(words))
            words += map(tuple, tokens.ids[places[:, None] + np.arange(length)].tolist())
    row, column = (np.concatenate([np.empty(0, np.int64), *parts]) for parts in (indices, columns))
    kept = np.bincount(column, minlength=len(words)) <= most
    kept &= np.array([any(word >= 2 for word in phrase) for phrase in words], bool)
    kept = kept & _longest_of_like_rows(row, column, words, kept)
    numbers = np.cumsum(kept) - 1
    row, column = row[kept[column]], numbers[column[kept[column]]]
    shape = (tokens.count, int(kept.sum()))
    table = csr_array((np.ones(row.size, np.float32), (row, column)), shape=shape).tocsc()
    return Phrases(table, tuple(word for word, keep in zip(words, kept, strict=True) if keep), len(words))


def _longest_of_like_rows(
    row: Ints, column: Ints, words: Sequence[tuple[int, ...]], kept: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Of all phrases that the very same rows hold, the longest; rows are told apart by sums of random numbers."""
    random = np.random.default_rng(0).integers(1, 2**62, int(row.max(initial=0)) + 1, np.uint64)
    sums = np.zeros(len(words), np.uint64)
    np.add.at(sums, column, random[row])
    # Ends of turns count for less than words.
    length = np.array([2 * len(phrase) - sum(word < 2 for word in phrase) for phrase in words], np.int64)
    order = np.lexsort((-length, sums, ~kept))
    first = np.ones(order.size, bool)
    first[1:] = sums[order][1:] != sums[order][:-1]
    chosen = np.zeros(len(words), bool)
    chosen[order[first]] = True
    return chosen


@dataclass(frozen=True)
class Places:
    """A phrase where it stands first in each of some rows."""

    words: tuple[int, ...]
    """Its tokens."""
    around: tuple[tuple[Ints, int], ...]
    """All tokens of each row, and where the phrase begins in them."""


def places(tokens: Tokens, words: tuple[int, ...], rows: Ints) -> Places:
    """Where a phrase stands in these rows, as far as it does."""
    wanted = np.array(words, np.int64)
    around: list[tuple[Ints, int]] = []
    for start, end in np.searchsorted(tokens.rows, [rows, rows + 1]).T.tolist():
        ids = tokens.ids[start:end]
        if (found := _occurrences(ids, wanted)).size:
            around.append((ids, int(found[0])))
    return Places(words, tuple(around))


def lengthened(places: Places) -> Places:
    """With all that stands before and after a phrase at nearly all of its places."""
    words, around = places.words, places.around
    need = max(1.0, _LENGTHEN * len(around))
    for before in (True, False):
        while len(words) < _LONGEST:
            at = -1 if before else len(words)
            beside = [int(ids[place + at]) if 0 <= place + at < ids.size else -1 for ids, place in around]
            found, counts = np.unique([word for word in beside if word >= 0], return_counts=True)
            if not counts.size or counts.max() < need:
                break
            word = int(found[counts.argmax()])
            words = (word, *words) if before else (*words, word)
            around = tuple(
                (ids, place - before)
                for (ids, place), neighbour in zip(around, beside, strict=True)
                if neighbour == word
            )
    return Places(words, around)


def _occurrences(ids: Ints, words: Ints) -> Ints:
    if not words.size or ids.size < words.size:
        return np.empty(0, np.int64)
    found = np.flatnonzero(ids[: ids.size - words.size + 1] == words[0])
    for offset in range(1, words.size):
        found = found[ids[found + offset] == words[offset]]
    return found
