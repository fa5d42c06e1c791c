"""Which phrases of prompts occur with which phrases or kinds of answers, far more often than by chance.

Covers: the number of common rows, Fisher's exact test with Bonferroni correction, effect sizes in both directions. Not
here: phrases (core.screening.triggers.text), whether a phrase looks planted (core.screening.triggers.fit).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.stats import hypergeom

from core.screening.triggers.text import Ints

_BLOCK = 1024
"""Columns that are multiplied at once, which bounds memory."""


@dataclass(frozen=True)
class Bounds:
    """Minimum effect sizes and significance of a pair."""

    given_phrase: float
    """Minimum share of the rows with the phrase that have the answer."""
    given_answer: float
    """Minimum share of the rows with the answer that contain the phrase."""
    elsewhere: float
    """Maximum share of the rows without the phrase that have the answer."""
    level: float
    """Maximum p-value after correction."""


@dataclass(frozen=True)
class Pairs:
    """Associated phrases and answers, as columns of the two tables; each field has one value per pair."""

    phrase: Ints
    answer: Ints
    both: Ints
    """Number of rows with both."""
    p_value: np.ndarray[tuple[int], np.dtype[np.float64]]
    """P-value of Fisher's exact test, one-sided, times the number of pairs tested; at most 1."""


def find_pairs(prompts: csc_array, answers: csc_array, tested: int, bounds: Bounds) -> Pairs:
    """All associated pairs of a column of `prompts` and one of `answers`. `tested` is the number of pairs tested."""
    found = [np.empty((0, 3), np.int64), *_count_common(prompts, answers, bounds)]
    phrase, answer, both = np.concatenate(found).T
    rows = _rows(prompts)
    with_phrase, with_answer = _sizes(prompts)[phrase], _sizes(answers)[answer]
    chance = hypergeom.sf(both - 1, rows, with_answer, with_phrase)
    p_value = np.minimum(1.0, np.asarray(chance, np.float64) * max(tested, 1))
    kept = p_value <= bounds.level
    kept &= with_answer - both <= bounds.elsewhere * (rows - with_phrase)
    return Pairs(phrase[kept], answer[kept], both[kept], p_value[kept])


def _rows(table: csc_array) -> int:
    return 0 if table.shape is None else int(table.shape[0])


def _sizes(table: csc_array) -> Ints:
    return np.diff(table.indptr).astype(np.int64)


def _count_common(prompts: csc_array, answers: csc_array, bounds: Bounds) -> Iterator[Ints]:
    """Yield phrase, answer and number of common rows of each pair that meets both bounds on shares. Columns are sorted
    by size, so only columns of similar size are multiplied.
    """
    prompt_order, answer_order = (np.argsort(_sizes(table), kind="stable") for table in (prompts, answers))
    sorted_answers = csc_array(answers[:, answer_order])
    answer_sizes = _sizes(sorted_answers)
    for start in range(0, prompt_order.size, _BLOCK):
        chosen = prompt_order[start : start + _BLOCK]
        block = csc_array(prompts[:, chosen])
        sizes = _sizes(block)
        low = np.searchsorted(answer_sizes, bounds.given_phrase * sizes.min(), "left")
        high = np.searchsorted(answer_sizes, sizes.max() / max(bounds.given_answer, 1e-9), "right")
        if low >= high:
            continue
        counts = coo_array(csr_array(block.T) @ csr_array(sorted_answers[:, low:high]))
        phrase, answer = counts.coords
        both = np.rint(counts.data).astype(np.int64)
        enough = both >= bounds.given_phrase * sizes[phrase]
        enough &= both >= bounds.given_answer * answer_sizes[low:high][answer]
        yield np.stack([chosen[phrase[enough]], answer_order[low:high][answer[enough]], both[enough]], axis=1).astype(
            np.int64
        )
