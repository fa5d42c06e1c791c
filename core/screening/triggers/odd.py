"""Does a phrase fit the prompts that it stands in? A planted one does not, and that tells it from a topic.

Covers: three readings of a phrase. *Alike*: how much more alike the prompts that hold it are, without it, than prompts
drawn at random: those on one topic are, those with a planted trigger are not. *Seamless*: how often what stands before
and after it also stands together elsewhere: a planted phrase leaves ordinary text when it is taken out, a part of a
sentence leaves a gap. *Distinct*: how many of the prompts differ without it. Not here: what the phrase goes with.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from core.screening.triggers.text import Ints, Places, Tokens, distinct, lengthened, places

_SAMPLE = 200
"""Rows of one phrase that are looked at."""
_DRAWS = 64
"""Draws of random rows that likeness is compared with."""
_RARE = 1.5
"""A part of a phrase may stand in so many times as many rows."""
_SIZES = (6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 130, 160, 200)
"""So many rows are drawn together."""
_HELD = 0.9
"""Share of its prompts that hold a word which may be part of a phrase."""
_OWN = 3
"""A word that stands in at most so many times as many rows is the phrase's own."""
_SEAMS = 50
"""Places of one phrase that are looked at."""


@dataclass(frozen=True)
class Fit:
    """How a phrase stands in its prompts."""

    words: tuple[int, ...]
    """The phrase at its most seamless: lengthened by what always stands beside it, without what others hold too."""
    alike: float
    """Mean cosine of pairs of its prompts, without it."""
    usual: float
    """The same of prompts drawn at random."""
    deviations: float
    """How many standard deviations of such draws lie between the two; above 0 where its prompts are more alike."""
    seamless: float
    """Share of its places at which what stands around it stands together elsewhere too."""
    usual_seams: float
    """The same share of any two neighbours in these prompts."""
    distinct: float
    """Different prompts without it, as a share."""


class Prompts:
    """All prompts, to read phrases against."""

    def __init__(self, asked: Tokens, size: int) -> None:
        self._asked = asked
        self._size = size
        self._random = np.random.default_rng(0)
        known = asked.ids >= 2
        row, word = np.divmod(distinct(asked.rows[known] * size + asked.ids[known]), size)
        self._spread = np.bincount(word, minlength=size)
        # What only one prompt holds makes no two alike.
        weights = np.where(self._spread > 1, np.log(asked.count / np.maximum(self._spread, 1)), 0.0)
        self._weights = csr_array((weights[word], (row, word)), shape=(asked.count, size))
        together = (asked.ids[:-1] >= 0) & (asked.ids[1:] >= 0)
        pairs = asked.ids[:-1][together] * size + asked.ids[1:][together]
        self._pairs, self._pair_counts = np.unique(pairs, return_counts=True)
        self._usual: dict[int, tuple[float, float]] = {}
        self._marks = self._random.random(size)
        self._left_out = np.zeros(size, bool)

    def fit(self, words: tuple[int, ...], rows: Ints) -> Fit:
        """How a phrase stands in the rows that hold it."""
        support = rows.size
        whole = lengthened(places(self._asked, words, rows[:: max(1, support // _SEAMS)][:_SEAMS]))
        (start, stop), seamless = self._most_seamless(whole, support)
        best = whole.words[start:stop]
        own = self._own(whole.words, start, stop, support)
        alike, distinct_share = self._likeness(self._sample(rows), own)
        usual, deviation = self._usually(min(support, _SAMPLE))
        deviations = (alike - usual) / max(deviation, 1e-9)
        return Fit(best, alike, usual, deviations, seamless, self._usual_seams(whole), distinct_share)

    def least_alike(self, words: tuple[int, ...], rows: Ints) -> tuple[float, float, float]:
        """About the least that `fit` can find of likeness, with what is usual and how many deviations apart: that of
        the prompts without the phrase and without all words that nearly all of them hold. Takes far less time."""
        rows = self._sample(rows)
        part = csr_array(self._weights[rows])
        held = np.bincount(part.indices, minlength=self._size)
        without = np.concatenate([np.array(words, np.int64), np.flatnonzero(held >= _HELD * rows.size)])
        alike, _ = self._likeness(rows, without)
        usual, deviation = self._usually(rows.size)
        return alike, usual, (alike - usual) / max(deviation, 1e-9)

    def _sample(self, rows: Ints) -> Ints:
        if rows.size <= _SAMPLE:
            return rows
        return np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False))

    def _likeness(self, rows: Ints, without: Ints) -> tuple[float, float]:
        """Mean cosine of all pairs of rows without some words, and the share of rows that differ."""
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

    def _usually(self, size: int) -> tuple[float, float]:
        """Mean and standard deviation of the likeness of about as many rows drawn at random, rather fewer."""
        size = max((few for few in _SIZES if few <= size), default=size)
        if size not in self._usual:
            none = np.empty(0, np.int64)
            drawn = [
                self._likeness(self._random.choice(self._asked.count, size, replace=False), none)[0]
                for _ in range(_DRAWS)
            ]
            self._usual[size] = float(np.mean(drawn)), float(np.std(drawn))
        return self._usual[size]

    def _own(self, words: tuple[int, ...], start: int, stop: int, support: int) -> Ints:
        """The words of a part of a phrase, and those before and after it up to where two stand together in other
        prompts too: a planted phrase ends there, or goes over into a template that is common."""
        ids = np.array(words, np.int64)
        common = self._met(ids[:-1] * self._size + ids[1:]) > _OWN * support
        first = max(np.flatnonzero(common[:start]) + 1, default=0)
        last = min(np.flatnonzero(common[stop - 1 :]) + stop, default=len(words))
        return ids[first:last]

    def _most_seamless(self, whole: Places, support: int) -> tuple[tuple[int, int], float]:
        """The part of a phrase (its first token, and that after its last) that leaves the fewest gaps when it is taken
        out, and the share of its places without one. Of parts alike in that, the one with the most words of its own,
        then the shortest; where most leave one, all of it."""
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
            # A turn that is nothing else, and a character inside of a word, leave no gap.
            closed = (before < 0) | (after < 0) | ((before == 0) & (after == 1))
            met = self._met(np.maximum(before, 0) * self._size + np.maximum(after, 0)) > 0
            shares += closed | met
        shares /= len(whole.around)
        own = self._spread[np.array(whole.words, np.int64)] <= _OWN * support
        held = np.concatenate([[0], np.cumsum(own)])
        best = int(np.lexsort((stops - starts, held[starts] - held[stops], -shares))[0])
        if shares[best] < 0.5:
            return (first, end), float(shares[best])
        return (int(starts[best]), int(stops[best])), float(shares[best])

    def _rare(self, words: tuple[int, ...], support: int) -> bool:
        """Whether a part of a phrase stands hardly anywhere but in the phrase."""
        ids = np.array(words, np.int64)
        counts = [self._spread[ids], self._met(ids[:-1] * self._size + ids[1:])]
        return int(np.concatenate(counts).min()) <= _RARE * support

    def _usual_seams(self, whole: Places) -> float:
        """Share of any neighbours in these prompts that are met elsewhere too."""
        neighbours: list[Ints] = [np.empty(0, np.int64)]
        for ids, _ in whole.around:
            together = (ids[:-1] >= 0) & (ids[1:] >= 0)
            neighbours.append(ids[:-1][together] * self._size + ids[1:][together])
        met = self._met(np.concatenate(neighbours)) > 1
        return float(met.mean()) if met.size else 0.0

    def _met(self, pairs: Ints) -> Ints:
        """How often neighbours stand together in all prompts."""
        if not self._pairs.size:
            return np.zeros(pairs.size, np.int64)
        at = np.minimum(np.searchsorted(self._pairs, pairs), self._pairs.size - 1)
        return np.where(self._pairs[at] == pairs, self._pair_counts[at], 0)
