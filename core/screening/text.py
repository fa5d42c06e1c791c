"""Text helpers of the checks that read rows: clauses of plain words, quoting and masking.

The time of every function is linear in the characters read. Not here: what the checks look for.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import Finding, is_report_only
from core.screening.check import Found

_ROWS_PER_REPORT = 200
_MAX_WORD = 24
"""Longer words are cut, which bounds what a pattern over words can read."""
_MAX_CLAUSE = 60
"""Words of a clause; a longer one is split into pieces."""
_OVERLAP = 20
"""Words that a piece of a long clause shares with the next one, so that no wording is cut in two."""
_END = re.compile(r"[.!?\n;:\u3002\uff01\uff1f\uff1b\uff1a]+")
"""Ends of clauses, also of Chinese and Japanese ones."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_MAX_QUOTE = 60


def find_first_per_row(
    rows: Sequence[Conversation], on_progress: OnProgress, find: Callable[[Conversation], Iterator[Finding]]
) -> Found:
    """One finding of each row that has any: the first that can drop the row, otherwise the first. `find` yields the
    findings of one row in order.
    """
    findings: list[Finding] = []
    for done, row in enumerate(rows):
        if done % _ROWS_PER_REPORT == 0:
            on_progress(done, len(rows))
        if (finding := _choose(find(row))) is not None:
            findings.append(finding)
    on_progress(len(rows), len(rows))
    return Found(findings)


def _choose(findings: Iterator[Finding]) -> Finding | None:
    """The first finding that can drop a row; the first one at all if there is none."""
    first = None
    for finding in findings:
        if not is_report_only(finding):
            return finding
        first = first or finding
    return first


def normalize(text: str) -> str:
    """The text in lower case with ASCII apostrophes."""
    return text.lower().replace("\u2019", "'")


def split_clauses(text: str) -> Iterator[str]:
    """Yield the clauses of a normalized text, each as its words separated by single spaces; none is empty.

    Punctuation is removed, a hyphen separates words, long words are cut, and long clauses are split into pieces that
    overlap.
    """
    for piece in _END.split(text):
        words = [word[:_MAX_WORD] for word in _WORD.findall(piece)]
        for start in range(0, max(len(words) - _OVERLAP, min(len(words), 1)), _MAX_CLAUSE - _OVERLAP):
            yield " ".join(words[start : start + _MAX_CLAUSE])


def shorten(text: str) -> str:
    """The start of a text, to be quoted in a reason."""
    return text if len(text) <= _MAX_QUOTE else f"{text[:_MAX_QUOTE].rstrip()}\u2026"


def mask(text: str) -> str:
    """The first characters of a secret: at most four, and at most a third of them."""
    return f"{text[: min(4, len(text) // 3)]}\u2026"
