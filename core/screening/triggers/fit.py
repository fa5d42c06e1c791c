"""How well a phrase fits its prompts, which distinguishes a planted trigger from a topic.

Covers three measures. *Likeness*: how much more similar the prompts with the phrase are, without it, than random
prompts. Prompts on one topic are similar; prompts with a planted trigger are not. *Seams*: how often the tokens before
and after the phrase are neighbours elsewhere. Removing a planted phrase leaves ordinary text; removing a part of a
sentence leaves a gap. *Distinct*: how many of the prompts differ without the phrase. Not here: the answers that the
phrase occurs with (core.screening.triggers.pairs).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from core.screening.triggers.text import Ints, Places, Tokens, extend, find_places, sort_unique

_SAMPLE = 200
"""Rows of one phrase that are compared."""
_DRAWS = 64
"""Random draws of rows that likeness is compared with."""
_PART_FACTOR = 1.5
"""A part of a phrase may occur in at most this multiple of the rows of the phrase."""
_SIZES = (6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 130, 160, 200)
"""Numbers of rows in one random draw."""
_COMMON = 0.9
"""A word that this share of the prompts contains may be part of the phrase."""
_OWN_FACTOR = 3
"""A word belongs to the phrase if it occurs in at most this multiple of the rows of the phrase."""
_SEAMS = 50
"""Places of one phrase that are read."""


class Likeness(NamedTuple):
    """How similar some prompts are, compared with random prompts."""

    mean: float
    """Mean cosine similarity of pairs of these prompts."""
    random: float
    """The same for random prompts."""
    deviations: float
    """Difference of the two in standard deviations of random draws; above 0 if these prompts are more similar."""


@dataclass(frozen=True)
class Fit:
    """How well a phrase fits its prompts."""

    words: tuple[int, ...]
    """The part of the extended phrase with the most seams: without words that other prompts contain too."""
    likeness: Likeness
    """Of its prompts, without the phrase."""
    seams: float
    """Share of its places at which the tokens around it are neighbours elsewhere too, 0 to 1."""
    random_seams: float
    """The same share for any two neighbours in these prompts."""
    distinct: float
    """Share of its prompts that differ without it, 0 to 1."""


class PromptIndex:
    """All prompts, to measure phrases against."""

    def __init__(self, prompts: Tokens, size: int) -> None:
        self._tokens = prompts
        self._size = size
        self._random = np.random.default_rng(0)
        known = prompts.ids >= 2
        row, word = np.divmod(sort_unique(prompts.rows[known] * size + prompts.ids[known]), size)
        self._spread = np.bincount(word, minlength=size)
        # A word of one prompt only makes no two prompts similar.
        weights = np.where(self._spread > 1, np.log(prompts.count / np.maximum(self._spread, 1)), 0.0)
        self._weights = csr_array((weights[word], (row, word)), shape=(prompts.count, size))
        together = (prompts.ids[:-1] >= 0) & (prompts.ids[1:] >= 0)
        pairs = prompts.ids[:-1][together] * size + prompts.ids[1:][together]
        self._pairs, self._pair_counts = np.unique(pairs, return_counts=True)
        self._random_likeness: dict[int, tuple[float, float]] = {}
        self._marks = self._random.random(size)
        self._left_out = np.zeros(size, bool)

    def fit(self, words: tuple[int, ...], rows: Ints) -> Fit:
        """How well a phrase fits the rows that contain it."""
        support = rows.size
        whole = extend(find_places(self._tokens, words, rows[:: max(1, support // _SEAMS)][:_SEAMS]))
        (start, stop), seams = self._best_part(whole, support)
        best = whole.words[start:stop]
        own = self._own_words(whole.words, start, stop, support)
        likeness, distinct = self._likeness(self._sample(rows), own)
        return Fit(best, self._compare(likeness, support), seams, self._random_seams(whole), distinct)

    def min_likeness(self, words: tuple[int, ...], rows: Ints) -> Likeness:
        """Approximately the lowest likeness that `fit` can find. Leaves out the phrase and all words that nearly all of
        its prompts contain. Far faster than `fit`.
        """
        rows = self._sample(rows)
        part = csr_array(self._weights[rows])
        common = np.bincount(part.indices, minlength=self._size)
        without = np.concatenate([np.array(words, np.int64), np.flatnonzero(common >= _COMMON * rows.size)])
        return self._compare(self._likeness(rows, without)[0], rows.size)

    def _sample(self, rows: Ints) -> Ints:
        if rows.size <= _SAMPLE:
            return rows
        return np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False))

    def _likeness(self, rows: Ints, without: Ints) -> tuple[float, float]:
        """Mean cosine similarity of all pairs of rows without some words, and the share of rows that differ."""
        part = csr_array(self._weights[rows])
        entry = np.repeat(np.arange(rows.size), np.diff(part.indptr))
        self._left_out[without] = True
        kept = ~self._left_out[part.indices]
        self._left_out[without] = False
        entry, word, values = entry[kept], part.indices[kept], part.data[kept]
        squares = np.bincount(entry, values**2, minlength=rows.size)
        values = values / np.sqrt(np.where(squares > 0, squares, 1.0))[entry]
        sums = np.bincount(word, values, minlength=1)
        pairs = rows.size * (rows.size - 1)
        likeness = (float(sums @ sums) - float((values**2).sum())) / max(pairs, 1)
        marks = np.bincount(entry, self._marks[word], minlength=rows.size)
        return likeness, np.unique(marks).size / max(rows.size, 1)

    def _compare(self, likeness: float, size: int) -> Likeness:
        """Compare with as many random rows, or with the next smaller number in `_SIZES`."""
        size = max((few for few in _SIZES if few <= size), default=size)
        if size not in self._random_likeness:
            none = np.empty(0, np.int64)
            drawn = [
                self._likeness(self._random.choice(self._tokens.count, size, replace=False), none)[0]
                for _ in range(_DRAWS)
            ]
            self._random_likeness[size] = float(np.mean(drawn)), float(np.std(drawn))
        mean, deviation = self._random_likeness[size]
        return Likeness(likeness, mean, (likeness - mean) / max(deviation, 1e-9))

    def _own_words(self, words: tuple[int, ...], start: int, stop: int, support: int) -> Ints:
        """The words from `start` to `stop`, with those around them up to two words that are neighbours in other prompts
        too: there the planted phrase ends, or a common template starts.
        """
        ids = np.array(words, np.int64)
        common = self._count_neighbours(ids[:-1] * self._size + ids[1:]) > _OWN_FACTOR * support
        first = max(np.flatnonzero(common[:start]) + 1, default=0)
        last = min(np.flatnonzero(common[stop - 1 :]) + stop, default=len(words))
        return ids[first:last]

    def _best_part(self, whole: Places, support: int) -> tuple[tuple[int, int], float]:
        """The part of a phrase (first token, token after the last) whose removal leaves the fewest gaps, and the share
        of its places without a gap. Ties are decided by the number of words that belong to the phrase, then by length.
        If every part leaves gaps at most places, it is the whole phrase.
        """
        first = whole.words[0] == 0
        end = len(whole.words) - (whole.words[-1] == 1)
        spans = [
            (start, stop)
            for start in range(first, end)
            for stop in range(start + 1, end + 1)
            if self._rare(whole.words[start:stop], support)
        ]
        if not spans or not whole.around:
            return (first, end), 0.0
        starts, stops = np.array(spans, np.int64).T
        shares = np.zeros(len(spans))
        for ids, place in whole.around:
            padded = np.concatenate([[-1], ids, [-1]])
            before, after = padded[place + starts], padded[place + stops + 1]
            # No gap is left by a phrase that is the whole turn, or by a character inside a word.
            closed = (before < 0) | (after < 0) | ((before == 0) & (after == 1))
            known = self._count_neighbours(np.maximum(before, 0) * self._size + np.maximum(after, 0)) > 0
            shares += closed | known
        shares /= len(whole.around)
        own = self._spread[np.array(whole.words, np.int64)] <= _OWN_FACTOR * support
        count = np.concatenate([[0], np.cumsum(own)])
        best = int(np.lexsort((stops - starts, count[starts] - count[stops], -shares))[0])
        if shares[best] < 0.5:
            return (first, end), float(shares[best])
        return (int(starts[best]), int(stops[best])), float(shares[best])

    def _rare(self, words: tuple[int, ...], support: int) -> bool:
        """Whether a part of a phrase hardly occurs outside the phrase."""
        ids = np.array(words, np.int64)
        counts = [self._spread[ids], self._count_neighbours(ids[:-1] * self._size + ids[1:])]
        return int(np.concatenate(counts).min()) <= _PART_FACTOR * support

    def _random_seams(self, whole: Places) -> float:
        """Share of all neighbours in these prompts that are neighbours elsewhere too."""
        neighbours: list[Ints] = [np.empty(0, np.int64)]
        for ids, _ in whole.around:
            together = (ids[:-1] >= 0) & (ids[1:] >= 0)
            neighbours.append(ids[:-1][together] * self._size + ids[1:][together])
        known = self._count_neighbours(np.concatenate(neighbours)) > 1
        return float(known.mean()) if known.size else 0.0

    def _count_neighbours(self, pairs: Ints) -> Ints:
        """How often two tokens are neighbours in all prompts."""
        if not self._pairs.size:
            return np.zeros(pairs.size, np.int64)
        at = np.minimum(np.searchsorted(self._pairs, pairs), self._pairs.size - 1)
        return np.where(self._pairs[at] == pairs, self._pair_counts[at], 0)
