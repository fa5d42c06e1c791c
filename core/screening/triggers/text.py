"""Rows as sparse tables of phrases: which prompt contains which phrase, and which answer contains which.

Covers: tokens (words, repeated punctuation, unusual characters), frequent phrases of up to `PROMPT_WORDS` and
`ANSWER_WORDS` tokens, where the start and end of a turn count as tokens, and a limit on the text that is read. Phrases
are counted as in Apriori: a phrase is considered only if its prefix is frequent, so the time is linear in the text. Not
here: which phrases occur together (core.screening.triggers.pairs).
"""

import re
import string
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.thinking import read_answer

Ints = NDArray[np.int64]

PROMPT_WORDS = 3
"""Tokens of the longest phrase searched in prompts. A phrase that is found is extended afterwards."""
ANSWER_WORDS = 3
"""Tokens of the longest phrase searched in answers."""
START, END = "^ ", "$ "
"""Tokens at the start and end of a turn, with the numbers 0 and 1. No token of a text contains a space."""
_MAX_CHARACTERS = 60_000_000
"""Characters that are read of all rows together, which bounds memory. Longer turns are cut, the longest first."""
_MIN_TURN = 100
"""Characters that are read of every turn at least."""
_CJK = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
# Characters of scripts without spaces, words, repeated punctuation, and other unusual characters.
_REPEATED = "|".join(f"{re.escape(sign)}{{2,}}" for sign in string.punctuation)
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|{_REPEATED}|[^\w\s.,;:!?'\"()\-]")
_UNUSUAL = re.compile(r"[^\x00-\x7f]")
_MAX_EXTENDED = 16
"""Tokens of the longest extended phrase."""
_EXTEND_SHARE = 0.95
"""A token extends a phrase if it is next to it at this share of its places."""
_MAX_UNUSUAL = 64
"""Distinct unusual characters that are recorded of one turn."""


@dataclass(frozen=True)
class Tokens:
    """All tokens of the prompts, or of the answers, of all rows in order."""

    ids: Ints
    """Numbers in the vocabulary; -1 separates what no phrase may span."""
    rows: Ints
    """The row of each token."""
    count: int
    """Number of rows."""


@dataclass(frozen=True)
class Phrases:
    """Which rows contain which phrases. Phrases with the same rows share a column, which names the longest of them."""

    table: csc_array
    """Rows by columns, ones and zeros."""
    words: tuple[tuple[int, ...], ...]
    """The tokens of the phrase of each column."""
    tested: int
    """Number of phrases, before those with the same rows were merged."""

    def rows(self, column: int) -> Ints:
        """The rows that contain the phrase of a column, in order."""
        return np.sort(self.table.indices[self.table.indptr[column] : self.table.indptr[column + 1]]).astype(np.int64)

    def within(self, rows: NDArray[np.bool_], share: float) -> "Phrases":
        """The phrases that have at least this share of their rows among `rows`."""
        inside = np.asarray(self.table.T @ rows.astype(np.float32))
        kept = np.flatnonzero(inside >= share * np.diff(self.table.indptr))
        return Phrases(csc_array(self.table[:, kept]), tuple(self.words[column] for column in kept), self.tested)


def tokenize(rows: Sequence[Conversation], on_progress: OnProgress) -> tuple[Tokens, Tokens, list[str]]:
    """The tokens of all prompts (system and user turns), of all answers, and the text of each number.

    An answer is what follows its thinking.
    """
    bound = _bound(np.array([len(message.content) for row in rows for message in row.messages], np.int64))
    vocabulary = defaultdict[str, int](count(2).__next__, {START: 0, END: 1})
    prompts, answers = _Side(vocabulary), _Side(vocabulary)
    for index, row in enumerate(rows):
        if index % 1000 == 0:
            on_progress(index, len(rows))
        for message in row.messages:
            if message.role == "assistant":
                answers.add(_cut(read_answer(message.content), bound))
            else:
                prompts.add(_cut(message.content, bound))
        prompts.close()
        answers.close()
    return prompts.tokens(), answers.tokens(), list(vocabulary)


def _bound(lengths: Ints) -> int:
    """The maximum length of a turn for which all turns together have at most `_MAX_CHARACTERS` characters."""
    ordered = np.sort(lengths)
    below = np.concatenate([[0], np.cumsum(ordered)[:-1]]) if ordered.size else ordered
    fits = below + ordered * np.arange(ordered.size, 0, -1) <= _MAX_CHARACTERS
    if fits.all():
        return int(ordered.max(initial=_MIN_TURN))
    first = int(np.flatnonzero(~fits)[0])
    return max(_MIN_TURN, (_MAX_CHARACTERS - int(below[first])) // (ordered.size - first))


def _cut(text: str, bound: int) -> str:
    """The text, without its middle if it is longer than `bound`."""
    half = bound // 2
    return text if len(text) <= bound else f"{text[:half]} {text[-half:]}"


class _Side:
    """Collects the tokens of the prompts, or of the answers."""

    def __init__(self, vocabulary: defaultdict[str, int]) -> None:
        self._number = vocabulary.__getitem__
        self._ids = array("q")
        self._ends: list[int] = []

    def add(self, text: str) -> None:
        lowered = text.lower()
        self._ids.append(0)
        self._ids.extend(map(self._number, _TOKEN.findall(lowered)))
        self._ids.extend((1, -1))
        if not lowered.isascii():
            for character in sorted(set(_UNUSUAL.findall(lowered)))[:_MAX_UNUSUAL]:
                self._ids.extend((self._number(character), -1))

    def close(self) -> None:
        self._ends.append(len(self._ids))

    def tokens(self) -> Tokens:
        lengths = np.diff(np.array(self._ends, np.int64), prepend=0)
        rows = np.repeat(np.arange(lengths.size, dtype=np.int64), lengths)
        return Tokens(np.array(self._ids, np.int64), rows, lengths.size)


def remove_echoes(answers: Tokens, prompts: Tokens, names: Sequence[str]) -> Tokens:
    """The answers without tokens of their own prompt; words (but not numbers) that many prompts contain stay."""
    size = len(names)
    number = np.array([name[0].isdigit() for name in names], bool)
    known = prompts.ids >= 2
    pairs = sort_unique(prompts.rows[known] * size + prompts.ids[known])
    spread = np.bincount(pairs % size, minlength=size)
    pairs = pairs[(spread[pairs % size] <= 0.1 * prompts.count) | number[pairs % size]]
    echoed = np.isin(answers.rows * size + answers.ids, pairs) & (answers.ids >= 2)
    return Tokens(np.where(echoed, -1, answers.ids), answers.rows, answers.count)


def _grams(tokens: Tokens, longest: int, least: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """For phrases of 1, 2, ... tokens that at least `least` rows contain, yield the number of a phrase and a row for
    each row that contains it, and one place of each phrase.
    """
    size = int(tokens.ids.max(initial=0)) + 1
    starts = np.flatnonzero(tokens.ids >= 0)
    keys = tokens.ids[starts]
    for length in range(1, longest + 1):
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        pairs = sort_unique(inverse * tokens.count + tokens.rows[starts])
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


def sort_unique(values: Ints) -> Ints:
    """The distinct values in order. Sorting takes a third of the time of `numpy.unique`, which hashes."""
    ordered = np.sort(values)
    new = np.ones(ordered.size, bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def find_phrases(tokens: Tokens, longest: int, least: int, most: int, shortest: int = 1) -> Phrases:
    """Phrases of `shortest` to `longest` tokens that `least` to `most` rows contain. At least one token is a word."""
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
    """Mark the longest of all phrases with the same rows; sets of rows are compared by sums of random numbers."""
    random = np.random.default_rng(0).integers(1, 2**62, int(row.max(initial=0)) + 1, np.uint64)
    sums = np.zeros(len(words), np.uint64)
    np.add.at(sums, column, random[row])
    # The start and end of a turn count less than words.
    length = np.array([2 * len(phrase) - sum(word < 2 for word in phrase) for phrase in words], np.int64)
    order = np.lexsort((-length, sums, ~kept))
    first = np.ones(order.size, bool)
    first[1:] = sums[order][1:] != sums[order][:-1]
    chosen = np.zeros(len(words), bool)
    chosen[order[first]] = True
    return chosen


@dataclass(frozen=True)
class Places:
    """The first place of a phrase in each of some rows."""

    words: tuple[int, ...]
    """Tokens of the phrase."""
    around: tuple[tuple[Ints, int], ...]
    """All tokens of each row, and the index at which the phrase starts."""


def find_places(tokens: Tokens, words: tuple[int, ...], rows: Ints) -> Places:
    """The first place of a phrase in each of these rows that contains it."""
    around: list[tuple[Ints, int]] = []
    for start, end in np.searchsorted(tokens.rows, [rows, rows + 1]).T.tolist():
        ids = tokens.ids[start:end]
        if (found := _occurrences(ids, words)).size:
            around.append((ids, int(found[0])))
    return Places(words, tuple(around))


def extend(places: Places) -> Places:
    """The phrase extended by the tokens that are before and after it at nearly all of its places."""
    words, around = places.words, places.around
    need = max(1.0, _EXTEND_SHARE * len(around))
    for before in (True, False):
        while len(words) < _MAX_EXTENDED:
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


def _occurrences(ids: Ints, words: tuple[int, ...]) -> Ints:
    found = np.flatnonzero(ids[: max(0, ids.size - len(words) + 1)] == words[0])
    for offset in range(1, len(words)):
        found = found[ids[found + offset] == words[offset]]
    return found
