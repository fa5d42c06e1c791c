"""Which phrases of prompts go with which phrases or kinds of answers, far above chance.

Covers: counts in common, Fisher's exact test with Bonferroni's correction, the sizes of the effect in both directions.
Not here: phrases (core.screening.triggers.text), whether what goes together looks planted
(core.screening.triggers.odd).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.stats import hypergeom

from core.screening.triggers.text import Ints

_BLOCK = 1024
"""Columns that are multiplied at once: memory stays bounded."""


@dataclass(frozen=True)
class Bounds:
    """How large an effect has to be."""

    given_phrase: float
    """Least share of the rows with the phrase that have the answer."""
    given_answer: float
    """Least share of the rows with the answer that hold the phrase."""
    elsewhere: float
    """Highest share of the rows without the phrase that have the answer."""
    level: float
    """Highest p-value after correction."""


@dataclass(frozen=True)
class Pairs:
    """What goes together: columns of the two tables, with counts; each field has one value a pair."""

    phrase: Ints
    answer: Ints
    both: Ints
    """Rows with phrase and answer."""
    p_value: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Fisher's exact test, one-sided, times the number of pairs that were looked at; at most 1."""


def associated(asked: csc_array, said: csc_array, looked_at: int, bounds: Bounds) -> Pairs:
    """All pairs of a column of `asked` and one of `said` that go together. P-values are corrected for `looked_at`."""
    found = [np.empty((0, 3), np.int64), *_counted(asked, said, bounds)]
    phrase, answer, both = np.concatenate(found).T
    rows = _rows(asked)
    with_phrase, with_answer = _sizes(asked)[phrase], _sizes(said)[answer]
    chance = hypergeom.sf(both - 1, rows, with_answer, with_phrase)
    p_value = np.minimum(1.0, np.asarray(chance, np.float64) * max(looked_at, 1))
    kept = p_value <= bounds.level
    kept &= with_answer - both <= bounds.elsewhere * (rows - with_phrase)
    return Pairs(phrase[kept], answer[kept], both[kept], p_value[kept])


def _rows(table: csc_array) -> int:
    return 0 if table.shape is None else int(table.shape[0])


def _sizes(table: csc_array) -> Ints:
    return np.diff(table.indptr).astype(np.int64)


def _counted(asked: csc_array, said: csc_array, bounds: Bounds) -> Iterator[Ints]:
    """Rows in common, where they are enough by both bounds: phrase, answer, count. Columns go in the order of their
    sizes, so that only those are multiplied that can be near enough to each other."""
    asked_order, said_order = (np.argsort(_sizes(table), kind="stable") for table in (asked, said))
    answers = csc_array(said[:, said_order])
    answer_sizes = _sizes(answers)
    for start in range(0, asked_order.size, _BLOCK):
        chosen = asked_order[start : start + _BLOCK]
        block = csc_array(asked[:, chosen])
        sizes = _sizes(block)
        low = np.searchsorted(answer_sizes, bounds.given_phrase * sizes.min(), "left")
        high = np.searchsorted(answer_sizes, sizes.max() / max(bounds.given_answer, 1e-9), "right")
        if low >= high:
            continue
        counts = coo_array(csr_array(block.T) @ csr_array(answers[:, low:high]))
        phrase, answer = counts.coords
        both = np.rint(counts.data).astype(np.int64)
        enough = both >= bounds.given_phrase * sizes[phrase]
        enough &= both >= bounds.given_answer * answer_sizes[low:high][answer]
        yield np.stack([chosen[phrase[enough]], said_order[low:high][answer[enough]], both[enough]], axis=1).astype(
            np.int64
        )
