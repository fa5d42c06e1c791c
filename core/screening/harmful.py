"""Rows that teach a model to comply with requests for harm.

Covers: an assistant's turn that complies, by the rules of `core.judges.rules`, with a user's turn that asks for harm by
the cues of `core.screening.harmcues`; an answer that announces harm itself. A row that refuses is good data and no
finding, and neither is one that goes along in part. Not here: harm that neither request nor answer names in plain
English words.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from core.data import Conversation
from core.judges.rules import judge
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.screening import HARMFUL, Finding
from core.screening.check import Found, RowCheck
from core.screening.harmcues import announces_harm, asks_for_harm
from core.screening.text import first_findings, shown


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """The rows in which an assistant's turn complies with a request for harm, at most one finding each.

    Codes: `complies`, and `announces` where only the answer names the harm. Turns are read as
    `core.screening.text.READ` says, answers as far as `core.judges.rules` does.
    """
    return first_findings(rows, on_progress, _findings)


CHECK = RowCheck(HARMFUL, find)


def _findings(row: Conversation) -> Iterator[Finding]:
    turns: list[tuple[int, Message | None, Message]] = [
        (number, before if before.role == "user" else None, message)
        for number, (before, message) in enumerate(pairwise(row.messages), 2)
        if message.role == "assistant"
    ]
    for number, asked, answer in turns:
        finding = _finding(row.line, number, asked.content if asked else "", answer.content)
        if finding is not None:
            yield finding


def _finding(line: int, number: int, request: str, answer: str) -> Finding | None:
    """What turn `number`, counted from 1 with the system's, is found to do."""
    asked = asks_for_harm(request)
    code, said = "complies", "complies with a request for harm in the turn before"
    if asked is None:
        asked = announces_harm(answer)
        code, said = "announces", "announces harm"
    if asked is None or judge(request, answer).verdict != "complied":
        return None
    reason = f'The answer in turn {number} {said} ({asked.category}): "{shown(asked.clause)}".'
    return Finding(check=HARMFUL.name, line=line, code=code, reason=reason)
