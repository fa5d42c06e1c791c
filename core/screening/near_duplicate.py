"""The check `near_duplicate`: rows that nearly repeat an earlier row.

Covers: rows that differ in case and white space only (`exact`), and rows with similar prompts and similar answers
(`near`). Similarity is the Jaccard index of the sets of three-word shingles; of the prompts' and the answers' the
smaller one counts. Numbers and the operators between them must be equal and in the same order, so an exercise from a
template with other numbers is not a duplicate, and neither is the same prompt with another answer. If the answer is
short, the prompts must have the same words in the same order, because many questions about one long table share an
answer.

Candidates are found by the rarest shingles of each row: two rows that share nine tenths of their shingles must share
one of the rarest tenth and one more (prefix filtering for set joins; Chaudhuri et al. 2006). This runs in numpy over
all rows at once. A row is compared with at most `_MAX_COMPARED` earlier rows, so the time is linear in the rows however
similar they are. MinHash (datasketch) solves the same problem only with some probability. Not here: paraphrases.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, count, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import NEAR_DUPLICATE, Finding
from core.screening.check import Found, RowCheck

ALIKE = 0.9
"""Similarity from which a row is a near-duplicate."""
_SHINGLE = 3
"""Words in a shingle."""
_MAX_COMPARED = 50
"""Earlier rows that a row is compared with; those that share its rarest shingles come first."""
_MAX_READ = 1000
"""Entries of the index that are read for one row."""
_MAX_CHARACTERS = 100_000
"""Characters of a prompt, and of an answer, whose shingles are compared. Of the rest only the length must be equal.
Exact duplicates are found at any length."""
_SHORT = 20
"""An answer with fewer words is short."""
_ROWS_PER_REPORT = 500
_BATCH = 1_000_000
"""Words whose shingles are computed at once, which bounds memory."""
_TOKEN = re.compile(
    # Single characters of scripts that do not separate words by spaces.
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+"
)
_FIGURE = re.compile(r"\d[\d.,]*+[ \t]?[-+*/=<>^%\u00d7\u00f7]?")
"""A number and the operator after it."""
_NUMBER_WORDS = frozenset(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half twice thrice
    quarter third double triple dozen no not never none yes true false
    """.split()  # noqa: SIM905 - a paragraph reads better than forty quoted words
)
"""Numbers in words, and words that reverse the meaning of a sentence."""

Codes = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass
class _Shingler:
    """Numbers the words of texts and computes the shingles of many texts at once."""

    words: defaultdict[str, int] = field(default_factory=lambda: defaultdict(count(1).__next__))
    """The number of every word, in order of appearance."""
    numbers: list[int] = field(default_factory=list)
    """Words of the texts whose shingles are not computed yet."""
    lengths: list[int] = field(default_factory=list)
    salts: list[int] = field(default_factory=list)
    shingles: list[Codes] = field(default_factory=lambda: [np.empty(0, np.uint64)])
    sizes: list[Places] = field(default_factory=lambda: [np.zeros(1, np.int64)])
    """Numbers of shingles of each text, after a 0: their sums are where the texts start."""

    def add(self, tokens: Sequence[str], salt: int) -> None:
        """Add a text. Texts with different salts share no shingle. A text shorter than a shingle is one shingle."""
        words = self.words
        self.numbers += [words[token] for token in tokens]
        self.numbers += [0] * (_SHINGLE - len(tokens))
        self.lengths.append(max(_SHINGLE, len(tokens)))
        self.salts.append(salt)
        if len(self.numbers) >= _BATCH:
            self._flush()

    def finish(self) -> "_Texts":
        """The shingles of all texts."""
        if self.lengths:
            self._flush()
        return _Texts(np.concatenate(self.shingles), np.cumsum(np.concatenate(self.sizes)))

    def _flush(self) -> None:
        """Compute the distinct shingles of every text, as codes sorted within the text."""
        numbers = np.array(self.numbers, dtype=np.uint64)
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        whole = text[: 1 - _SHINGLE] == text[_SHINGLE - 1 :]
        codes = np.array(self.salts, dtype=np.uint64)[text[: 1 - _SHINGLE]]
        for offset in range(_SHINGLE):
            codes = _mix(codes ^ numbers[offset : len(numbers) - _SHINGLE + 1 + offset])
        codes, text = codes[whole], text[: 1 - _SHINGLE][whole]
        order = np.lexsort((codes, text))
        codes, text = codes[order], text[order]
        first = np.ones(len(codes), dtype=np.bool_)
        first[1:] = (codes[1:] != codes[:-1]) | (text[1:] != text[:-1])
        self.shingles.append(codes[first])
        self.sizes.append(np.bincount(text[first], minlength=len(self.lengths)))
        self.numbers.clear()
        self.lengths.clear()
        self.salts.clear()


@dataclass(frozen=True, eq=False)
class _Texts:
    """The shingles of all rows. Each row has two texts, its prompt and its answer."""

    shingles: Codes
    """Sorted within each text."""
    starts: Places
    """Index in `shingles` at which each text starts, and the end of the last one."""

    def size(self, row: int) -> int:
        """Number of shingles of a row."""
        return int(self.starts[2 * row + 2] - self.starts[2 * row])

    def similarity(self, one: int, other: int) -> float:
        """Similarity of two rows: of their prompts or of their answers, whichever is smaller."""
        return min(self._jaccard(2 * one + part, 2 * other + part) for part in (0, 1))

    def _jaccard(self, one: int, other: int) -> float:
        first = self.shingles[self.starts[one] : self.starts[one + 1]]
        second = self.shingles[self.starts[other] : self.starts[other + 1]]
        merged = np.sort(np.concatenate([first, second]))
        shared = int(np.count_nonzero(merged[1:] == merged[:-1]))
        return shared / (len(merged) - shared)


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Flag rows that repeat an earlier row; one finding per row, which names the first row of its group.

    Codes: `exact` and `near`. The score is the similarity, 1 for `exact`.
    """
    shingler = _Shingler()
    texts: dict[bytes, int] = {}
    same: list[Finding] = []
    distinct: list[int] = []
    for index, row in enumerate(rows):
        if index % _ROWS_PER_REPORT == 0:
            on_progress(index // 2, len(rows))
        earlier = texts.setdefault(_digest(row), index)
        if earlier != index:
            same.append(_finding(rows, index, earlier, 1.0, "exact"))
        else:
            distinct.append(index)
            _read(row, shingler)
    near = [
        _finding(rows, distinct[one], distinct[other], score, "near")
        for one, other, score in _near(shingler.finish(), lambda done: on_progress((len(rows) + done) // 2, len(rows)))
    ]
    on_progress(len(rows), len(rows))
    return Found(sorted(same + near, key=lambda finding: finding.line))


CHECK = RowCheck(NEAR_DUPLICATE, find)


def _finding(rows: Sequence[Conversation], index: int, earlier: int, score: float, code: str) -> Finding:
    line = rows[earlier].line
    how = "is the same as" if code == "exact" else f"shares at least {score:.0%} of its wording with"
    return Finding(
        check=NEAR_DUPLICATE.name,
        line=rows[index].line,
        code=code,
        reason=f"The row {how} the row on line {line}.",
        score=round(score, 4),
    )


def _digest(row: Conversation) -> bytes:
    """A digest that is equal for rows that differ in case and white space only."""
    state = blake2b(digest_size=16)
    for message in row.messages:
        state.update(f"{message.role}\0{' '.join(message.content.lower().split())}\0".encode())
    return state.digest()


def _read(row: Conversation, shingler: _Shingler) -> None:
    answer = "\n".join(message.content for message in row.messages if message.role == "assistant").lower()
    prompt = "\n".join(message.content for message in row.messages if message.role != "assistant").lower()
    prompt_tokens, answer_tokens = (_TOKEN.findall(text[:_MAX_CHARACTERS]) for text in (prompt, answer))
    state = blake2b(digest_size=7)
    for text, tokens in ((prompt, prompt_tokens), (answer, answer_tokens)):
        state.update(str(len(text) if len(text) > _MAX_CHARACTERS else 0).encode())
        state.update("\0".join(_FIGURE.findall(text)).replace(" ", "").encode())
        if not _NUMBER_WORDS.isdisjoint(tokens):
            state.update("\1".join(token for token in tokens if token in _NUMBER_WORDS).encode())
    if len(answer_tokens) < _SHORT:
        state.update("\2".join(["", *prompt_tokens]).encode())
    salt = 2 * int.from_bytes(state.digest())
    shingler.add(prompt_tokens, salt)
    shingler.add(answer_tokens, salt + 1)


_FACTORS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)


def _mix(codes: Codes) -> Codes:
    """Mix codes so that every bit of the result depends on every bit of the input (finalizer of MurmurHash3)."""
    for factor in _FACTORS:
        codes = (codes ^ (codes >> _SHIFT)) * factor
    return codes ^ (codes >> _SHIFT)


def _near(texts: _Texts, on_progress: Callable[[int], None]) -> Iterator[tuple[int, int, float]]:
    """Yield (row, earlier row, similarity) of each row that is similar to an earlier one that is not a duplicate."""
    index: dict[int, list[int]] = {}
    for row, rare in enumerate(_rarest_shingles(texts)):
        if row % _ROWS_PER_REPORT == 0:
            on_progress(row)
        alike = ((texts.similarity(row, earlier), -earlier) for earlier in _candidates(rare, index, texts, row))
        score, earlier = max(alike, default=(0.0, 0))
        if score >= ALIKE:
            yield row, -earlier, score
        else:
            for shingle in rare:
                index.setdefault(shingle, []).append(row)


def _candidates(rare: Sequence[int], index: dict[int, list[int]], texts: _Texts, row: int) -> set[int]:
    """Earlier rows of similar length that share a rare shingle, up to a limit."""
    found: set[int] = set()
    size = texts.size(row)
    for earlier in islice(chain.from_iterable(index.get(shingle, ()) for shingle in rare), _MAX_READ):
        if ALIKE * size <= texts.size(earlier) <= size / ALIKE:
            found.add(earlier)
            if len(found) == _MAX_COMPARED:
                break
    return found


def _rarest_shingles(texts: _Texts) -> Iterator[list[int]]:
    """Yield the rarest shingles of each row, rarest first: any similar row shares one of them. Shingles of one row only
    are left out.
    """
    _, numbers, counts = np.unique(texts.shingles, return_inverse=True, return_counts=True)
    bounds = texts.starts[::2]
    sizes = np.diff(bounds)
    kept = sizes - np.ceil(ALIKE * sizes - 1e-9).astype(np.int64) + 1
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((numbers, counts[numbers], row))
    rank = np.arange(len(order)) - np.repeat(bounds[:-1], sizes)
    useful = (rank < np.repeat(kept, sizes)) & (counts[numbers[order]] > 1)
    chosen = numbers[order][useful]
    ends = np.cumsum(np.bincount(row[useful] + 1, minlength=len(sizes) + 1))
    for start, end in pairwise(ends.tolist()):
        yield chosen[start:end].tolist()
