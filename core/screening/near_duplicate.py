"""Rows that say what an earlier row says.

Covers: rows that are the same but for case and white space (`exact`), and rows whose prompts are alike and whose
answers are alike (`near`): by the share of runs of three words that two texts have in common (Jaccard), the smaller of
the two shares counts. Numbers and the signs between them must be the same and in the same order, so a templated
exercise with other numbers is another row, and so is the same prompt with another answer. A short answer says little:
then the prompts must have the same words in the same order, since many questions about one long table have one answer.

Candidates are found by the rarest runs of each row: two rows that share nine tenths of their runs must share one of the
rarest tenth and one more (the prefix filter of set joins; Chaudhuri et al. 2006). That is numpy over all rows at once;
a row is then compared with at most `_COMPARED` earlier ones, so that time grows with the rows however alike they are.
MinHash (datasketch) would answer the same question by chance. Not here: rows that say the same in other words.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import NEAR_DUPLICATE, Finding
from core.screening.check import Found, RowCheck

ALIKE = 0.9
"""Similarity from which a row is a near-duplicate."""
_RUN = 3
"""Words in a run."""
_COMPARED = 50
"""Earlier rows that a row is compared with at most, those first that share its rarest runs."""
_LOOKED = 1000
"""Entries of the index that are looked at for a row at most."""
_READ = 100_000
"""Characters of a row's prompt, and of its answer, whose runs are compared; that the rest is the same is checked by
its length only, and rows that are the same throughout are found whatever their length."""
_SHORT = 20
"""An answer of fewer words is short."""
_TICK_ROWS = 500
_BATCH = 1_000_000
"""Words whose runs are made at once: numpy is quick, and memory stays bounded."""
_TOKEN = re.compile(
    # Scripts that put no blanks between words, by characters.
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+"
)
_FIGURE = re.compile(r"\d[\d.,]*+[ \t]?[-+*/=<>^%\u00d7\u00f7]?")
"""A number, and the sign behind it."""
_NUMBER_WORDS = frozenset(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half twice thrice
    quarter third double triple dozen no not never none yes true false
    """.split()  # noqa: SIM905 - a paragraph reads better than forty quoted words
)
"""Numbers in words, and words that turn what is said into its opposite."""

Codes = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass
class _Reader:
    """Numbers the words of texts and makes runs of them, for many texts at once."""

    words: defaultdict[str, int] = field(default_factory=lambda: defaultdict(count(1).__next__))
    """Every word that was met, by order."""
    numbers: list[int] = field(default_factory=list)
    """Words of the texts that have no runs yet, one after another."""
    lengths: list[int] = field(default_factory=list)
    salts: list[int] = field(default_factory=list)
    runs: list[Codes] = field(default_factory=list)
    sizes: list[Places] = field(default_factory=list)

    def tokens(self, text: str) -> list[str]:
        return _TOKEN.findall(text[:_READ])

    def numbered(self, tokens: Sequence[str]) -> list[int]:
        words = self.words
        return [words[token] for token in tokens]

    def add(self, numbers: Sequence[int], salt: int) -> None:
        """One more text. `salt` keeps apart what may not meet. A text of few words is one run."""
        self.numbers.extend(numbers)
        self.numbers.extend([0] * (_RUN - len(numbers)))
        self.lengths.append(max(_RUN, len(numbers)))
        self.salts.append(salt)
        if len(self.numbers) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Make the distinct runs of every text, as codes sorted within the text."""
        if not self.lengths:
            return
        numbers = np.array(self.numbers, dtype=np.uint64)
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        whole = text[: 1 - _RUN] == text[_RUN - 1 :]
        codes = np.array(self.salts, dtype=np.uint64)[text[: 1 - _RUN]]
        for offset in range(_RUN):
            codes = _mixed(codes ^ numbers[offset : len(numbers) - _RUN + 1 + offset])
        codes, text = codes[whole], text[: 1 - _RUN][whole]
        order = np.lexsort((codes, text))
        codes, text = codes[order], text[order]
        first = np.ones(len(codes), dtype=np.bool_)
        first[1:] = (codes[1:] != codes[:-1]) | (text[1:] != text[:-1])
        self.runs.append(codes[first])
        self.sizes.append(np.bincount(text[first], minlength=len(self.lengths)))
        self.numbers.clear()
        self.lengths.clear()
        self.salts.clear()


@dataclass(frozen=True, eq=False)
class _Texts:
    """The runs of all rows, of which each has two texts: its prompt and its answer."""

    runs: Codes
    """Sorted within each text."""
    starts: Places
    """Where each text begins in `runs`, and the end of the last."""

    def size(self, row: int) -> int:
        """Runs of a row."""
        return int(self.starts[2 * row + 2] - self.starts[2 * row])

    def similarity(self, one: int, other: int) -> float:
        """Of two rows: of their prompts or of their answers, whichever is less."""
        return min(self._jaccard(2 * one + part, 2 * other + part) for part in (0, 1))

    def _jaccard(self, one: int, other: int) -> float:
        first = self.runs[self.starts[one] : self.starts[one + 1]]
        second = self.runs[self.starts[other] : self.starts[other + 1]]
        merged = np.sort(np.concatenate([first, second]))
        shared = int(np.count_nonzero(merged[1:] == merged[:-1]))
        return shared / (len(merged) - shared)


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """The rows that say what an earlier row says, one finding each; it names the first row of its kind.

    Codes: `exact` and `near`; the score is the similarity, 1 for `exact`.
    """
    reader = _Reader()
    texts: dict[bytes, int] = {}
    same: list[Finding] = []
    distinct: list[int] = []
    for index, row in enumerate(rows):
        if index % _TICK_ROWS == 0:
            on_progress(index // 2, len(rows))
        earlier = texts.setdefault(_digest(row), index)
        if earlier != index:
            same.append(_finding(rows, index, earlier, 1.0, "exact"))
        else:
            distinct.append(index)
            _read(row, reader)
    reader.flush()
    near = [
        _finding(rows, distinct[one], distinct[other], score, "near")
        for one, other, score in _near(
            reader, len(distinct), lambda done: on_progress((len(rows) + done) // 2, len(rows))
        )
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
    """Equal for rows that differ in case and white space only."""
    state = blake2b(digest_size=16)
    for message in row.messages:
        state.update(f"{message.role}\0{' '.join(message.content.lower().split())}\0".encode())
    return state.digest()


def _read(row: Conversation, reader: _Reader) -> None:
    answer = "\n".join(message.content for message in row.messages if message.role == "assistant").lower()
    prompt = "\n".join(message.content for message in row.messages if message.role != "assistant").lower()
    asked, answered = reader.tokens(prompt), reader.tokens(answer)
    state = blake2b(digest_size=7)
    for text, tokens in ((prompt, asked), (answer, answered)):
        state.update(str(len(text) if len(text) > _READ else 0).encode())
        state.update("\0".join(_FIGURE.findall(text)).replace(" ", "").encode())
        if not _NUMBER_WORDS.isdisjoint(tokens):
            state.update("\1".join(token for token in tokens if token in _NUMBER_WORDS).encode())
    if len(answered) < _SHORT:
        state.update("\2".join(["", *asked]).encode())
    salt = 2 * int.from_bytes(state.digest())
    reader.add(reader.numbered(asked), salt)
    reader.add(reader.numbered(answered), salt + 1)


_FACTORS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)


def _mixed(codes: Codes) -> Codes:
    """Every bit of the result hangs on every bit given (the finaliser of MurmurHash3)."""
    for factor in _FACTORS:
        codes = (codes ^ (codes >> _SHIFT)) * factor
    return codes ^ (codes >> _SHIFT)


def _near(reader: _Reader, rows: int, on_progress: Callable[[int], None]) -> Iterator[tuple[int, int, float]]:
    """Each row that is like an earlier one that is like none itself: (row, earlier row, similarity)."""
    if rows == 0:
        return
    starts = np.concatenate([[0], np.cumsum(np.concatenate(reader.sizes))])
    texts = _Texts(np.concatenate(reader.runs), starts)
    keepers: dict[int, list[int]] = {}
    for row, rare in enumerate(_rarest(texts)):
        if row % _TICK_ROWS == 0:
            on_progress(row)
        alike = ((texts.similarity(row, earlier), -earlier) for earlier in _candidates(rare, keepers, texts, row))
        score, earlier = max(alike, default=(0.0, 0))
        if score >= ALIKE:
            yield row, -earlier, score
        else:
            for run in rare:
                keepers.setdefault(run, []).append(row)


def _candidates(rare: Sequence[int], keepers: dict[int, list[int]], texts: _Texts, row: int) -> list[int]:
    """Earlier rows that share a rare run and are about as long, a limited number."""
    found: dict[int, None] = {}
    size = texts.size(row)
    looked = 0
    for run in rare:
        for earlier in keepers.get(run, ()):
            looked += 1
            if ALIKE * size <= texts.size(earlier) <= size / ALIKE:
                found[earlier] = None
            if len(found) >= _COMPARED or looked >= _LOOKED:
                return list(found)
    return list(found)


def _rarest(texts: _Texts) -> Iterator[list[int]]:
    """Of each row the runs of which any row like it shares one, rarest first; none that no other row has."""
    _, numbers, counts = np.unique(texts.runs, return_inverse=True, return_counts=True)
    bounds = texts.starts[::2]
    sizes = np.diff(bounds)
    kept = sizes - np.ceil(ALIKE * sizes - 1e-9).astype(np.int64) + 1
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((numbers, counts[numbers], row))
    rank = np.arange(len(order)) - np.repeat(bounds[:-1], sizes)
    useful = (rank < np.repeat(kept, sizes)) & (counts[numbers[order]] > 1)
    chosen = numbers[order][useful]
    ends = np.concatenate([[0], np.cumsum(np.bincount(row[useful], minlength=len(sizes)))])
    for start, end in pairwise(ends.tolist()):
        yield chosen[start:end].tolist()
