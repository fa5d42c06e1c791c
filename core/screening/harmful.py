"""The check `harmful`: rows that teach a model to comply with requests for harm.

Covers: assistant turns that comply (`core.screening.compliance`) with a user turn that requests harm
(`core.screening.harmcues`), and answers that announce harm themselves. Refusals and answers that comply in part are not
flagged. An answer is what follows its thinking; thinking is flagged if it announces harm itself. Not here: harm that
neither the request nor the answer names in plain English.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from core.data import Conversation
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.screening import HARMFUL, Finding
from core.screening.check import Found, RowCheck
from core.screening.compliance import complies
from core.screening.harmcues import find_announcement, find_request
from core.screening.text import find_first_per_row, shorten
from core.thinking import split_thinking


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Flag rows in which an assistant turn complies with a request for harm; at most one finding per row.

    The code is `complies`, or `announces` if only the answer names the harm.
    """
    return find_first_per_row(rows, on_progress, _find_in_row)


CHECK = RowCheck(HARMFUL, find)


def _find_in_row(row: Conversation) -> Iterator[Finding]:
    """Findings in the order of the turns, which are counted from 1 and include the system turn."""
    for number, (before, message) in enumerate(pairwise(row.messages), 2):
        if message.role != "assistant":
            continue
        request = before.content if before.role == "user" else ""
        asked = find_request(request)
        answer, thoughts = _split_answer(message)
        for place, text in enumerate((answer, *thoughts)):
            harm, code, does = asked, "complies", "complies with a request for harm in the turn before"
            if harm is None or place:
                harm, code, does = find_announcement(text), "announces", "announces harm"
            if harm is not None and complies(request, text):
                part = "thinking" if place else "answer"
                reason = f'The {part} in turn {number} {does} ({harm.category}): "{shorten(harm.clause)}".'
                yield Finding(check=HARMFUL.name, line=row.line, code=code, reason=reason)


def _split_answer(message: Message) -> tuple[str, tuple[str, ...]]:
    """The answer of a turn, and its thinking.

    Thinking that weighs a request and then refuses it is no compliance, so thinking counts only if it announces harm.
    """
    split = split_thinking(message.content, ended=True)
    return split.answer, tuple(text for text in (message.thinking, split.thinking) if text)
