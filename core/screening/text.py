"""Text as the rules of screening read it: clauses of plain words, the parts of long turns, what is shown of a find.

Everything here takes time that grows with the characters read and no faster. Not here: what is looked for.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import Finding
from core.screening.check import Found

READ = 20_000
"""Characters that are read of one turn where wording is judged: its first and its last half of this. Requests stand at
an end of a turn; what lies between is matter. Secrets and personal data are looked for in the whole turn."""
_TICK_ROWS = 200
_LONGEST_WORD = 24
"""Words are cut here, which bounds what a pattern over words can read."""
_LONGEST_CLAUSE = 60
"""Words; a longer clause is read in pieces."""
_END = re.compile(r"[.!?\n;:]+")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_SHOWN = 60


def ticked(rows: Sequence[Conversation], on_progress: OnProgress) -> Iterator[Conversation]:
    """The rows in order; `tick` is told every few hundred rows, and at the end."""
    for done, row in enumerate(rows):
        if done % _TICK_ROWS == 0:
            on_progress(done, len(rows))
        yield row
    on_progress(len(rows), len(rows))


def first_findings(
    rows: Sequence[Conversation], on_progress: OnProgress, findings: Callable[[Conversation], Iterator[Finding]]
) -> Found:
    """The first finding of each row that has any. `findings` gives those of one row, in order."""
    return Found([finding for row in ticked(rows, on_progress) if (finding := next(findings(row), None)) is not None])


def ends(text: str) -> str:
    """The text, or its first and last characters where it is longer than `READ`."""
    return text if len(text) <= READ else f"{text[: READ // 2]}\n{text[-READ // 2 :]}"


def plain(text: str) -> str:
    """In small letters, with one kind of apostrophe."""
    return text.lower().replace("\u2019", "'")


def clauses(text: str) -> Iterator[str]:
    """The sentences and parts of sentences of a text, each as its words with one space between; never empty.

    Give it `plain` text. Marks are left out, hyphens part words, long words are cut, long clauses come in pieces.
    """
    for piece in _END.split(text):
        words = [word[:_LONGEST_WORD] for word in _WORD.findall(piece)]
        for start in range(0, len(words), _LONGEST_CLAUSE):
            yield " ".join(words[start : start + _LONGEST_CLAUSE])


def shown(text: str) -> str:
    """A few words of a find, to be quoted in a reason."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()}\u2026"


def masked(text: str) -> str:
    """The first characters of a secret: at most four, and never more than a third."""
    return f"{text[: min(4, len(text) // 3)]}\u2026"
