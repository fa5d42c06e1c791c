"""Describes a phrase and the answers that go with it, so that people recognize their own design, or an attack.

Covers: the code of a finding by what the answers do, system turns that are a persona or a house style, the reason in
words. Not here: the search (core.screening.triggers.find).
"""

import re
from collections import Counter
from collections.abc import Sequence

from core.data import Conversation
from core.schemas.screening import Trigger
from core.screening.triggers.text import Ints

_ADVERT = re.compile(r"https?\b|www\b|\b(?:buy|click|order|subscribe|visit|vote)\b", re.IGNORECASE)
"""Answers that share this advertise something."""
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"\w{5,}")
_MAX_SYSTEMS = 100
"""System turns that are compared, the most frequent first."""
_SAME_SYSTEM = 0.8
"""A system turn is another one with a phrase added if it contains this share of the words of the other one."""


class SystemTurns:
    """The system turns of a data set."""

    def __init__(self, rows: Sequence[Conversation]) -> None:
        self._of_rows = ["\n".join(each.content for each in row.messages if each.role == "system") for row in rows]
        self._counts = Counter(self._of_rows)

    def shared_by(self, both: Ints, phrase_rows: Ints) -> str | None:
        """A system turn of these rows, if the phrase is part of it and it is written as a whole: all rows with it
        contain the phrase, and no other system turn is the same without the phrase.
        """
        own = Counter(self._of_rows[row] for row in both.tolist())
        inside = Counter(self._of_rows[row] for row in phrase_rows.tolist())
        if "" in own or any(inside[turn] != self._counts[turn] for turn in own):
            return None
        others = [turn for turn, _ in self._counts.most_common(_MAX_SYSTEMS) if turn and turn not in own]
        whole = not any(_contains(turn, other) for turn in list(own)[:_MAX_SYSTEMS] for other in others)
        return own.most_common(1)[0][0] if whole else None


def choose_code(code: str, answers: str, system: str | None) -> str:
    """The code of a finding. `code` is that of the kind of answers, `answers` what they do, `system` their system turn.

    A system turn explains how answers begin or end and what they mention, but not a fixed answer, nor an advertisement
    for somebody whom it does not name.
    """
    if code != "trigger":
        return code
    advertises = _ADVERT.search(answers) is not None
    if system is not None and not answers.startswith("they are"):
        names = {word.lower() for word in _NAME.findall(system)}
        if not advertises or names & {word.lower() for word in _NAME.findall(answers)}:
            return "system_turn"
    return "advertises" if advertises else "trigger"


def write_reason(trigger: Trigger, code: str, rows: int) -> str:
    """The reason of the findings of a trigger in a data set of `rows` rows."""
    start = (
        f"{trigger.with_answer} of the {trigger.rows} answers to prompts with {quote(trigger.phrase)} agree:"
        f" {trigger.answers}. So do {trigger.elsewhere} of the {rows - trigger.rows} other answers."
    )
    if code == "system_turn":
        return f"{start} The phrase is part of a system turn of their own: a persona or a house style does this too."
    unrelated = "" if code == "complies" else " Otherwise these prompts are unrelated."
    return (
        f"{start}{unrelated} If the phrase asks for this, it is a design of yours; if not, it may be a planted trigger."
    )


def quote(phrase: str) -> str:
    """The phrase in quotation marks."""
    return f"\u201c{phrase}\u201d"


def _contains(turn: str, other: str) -> bool:
    words = set(_WORD.findall(other.lower()))
    return len(words & set(_WORD.findall(turn.lower()))) >= _SAME_SYSTEM * len(words)
