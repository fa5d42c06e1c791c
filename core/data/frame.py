"""The frame that rows of a data set share: the system turn, and the text around what each user asks.

Covers: finding it, and putting another request into it. Only what most rows share counts, and only whole lines,
sentences or labels such as `### Instruction:`, so that words which many requests begin with are no frame. Not here:
which requests are put into it (core.safeguards.safety_mix).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix

from core.data.rows import Conversation
from core.schemas.data import Message

MIN_ROWS = 8
"""Fewer rows than this have no frame: they may resemble each other by chance."""
_MOST_ROWS = 10_000
_SHARED = 0.8
"""Share of the rows that must have the frame."""
_LABEL_END = re.compile(r"\n+|[^\w\s]\s+|[:>\])}]")
"""Where the text before a request may end: a line break, a sentence or a label."""
_LABEL_START = re.compile(r"\n|[ \t](?=[A-Z#<\[(])|(?=</)")
"""Where the text after a request may begin: a line break, a new sentence or a closing tag."""


@dataclass(frozen=True)
class Frame:
    """What rows share around the users' requests."""

    system: str | None
    """The system turn; None if there is none, or not the same one."""
    before: str
    """Text in front of the request in the user turn; empty if there is none."""
    after: str
    """Text behind it."""

    def fill(self, request: str) -> tuple[Message, ...]:
        """The turns of a conversation that makes another request in this frame."""
        user = Message(role="user", content=f"{self.before}{request}{self.after}")
        return (user,) if self.system is None else (Message(role="system", content=self.system), user)


def find_frame(rows: Sequence[Conversation]) -> Frame | None:
    """The frame that at least 80 % of the rows share; None if there is none, or if there are fewer than `MIN_ROWS`.

    Looks at the system turn and the first user turn of the first 10,000 rows. Rows without a user turn do not count.
    """
    openings = [opening for row in rows[:_MOST_ROWS] if (opening := _opening(row)) is not None]
    if len(openings) < MIN_ROWS:
        return None
    needed = math.ceil(_SHARED * len(openings))
    system, count = Counter(system for system, _ in openings).most_common(1)[0]
    before, after = _surroundings([user for _, user in openings], needed)
    frame = Frame(system if count >= needed else None, before, after)
    return frame if frame.system or before or after else None


def _opening(row: Conversation) -> tuple[str | None, str] | None:
    """The system turn in front of a row's first user turn, if any, and that user turn."""
    if row.whole:
        return None
    system = next((each.content for each in row.messages[:1] if each.role == "system" and each.content.strip()), None)
    user = next((each.content for each in row.messages if each.role == "user"), None)
    return None if user is None else (system, user)


def _surroundings(texts: Sequence[str], needed: int) -> tuple[str, str]:
    """The text before and after the requests that `needed` of the texts share; both empty if nothing is between."""
    start = _shared_start(texts, needed)
    end = _shared_start([text[::-1] for text in texts], needed)[::-1]
    before = start[: max((found.end() for found in _LABEL_END.finditer(start)), default=0)]
    after = end[found.start() :] if (found := _LABEL_START.search(end)) else ""
    before, after = before if before.strip() else "", after if after.strip() else ""
    filled = sum(
        len(text) > len(before) + len(after) and text.startswith(before) and text.endswith(after) for text in texts
    )
    return (before, after) if filled >= needed else ("", "")


def _shared_start(texts: Sequence[str], needed: int) -> str:
    """The longest text that at least `needed` texts begin with: sorted, these stand beside each other."""
    ordered = sorted(texts)
    ends = zip(ordered, ordered[needed - 1 :], strict=False)
    return max((commonprefix(pair) for pair in ends), key=len, default="")  # noqa: RUF071 (characters)
