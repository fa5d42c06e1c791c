"""Rows that give the assistant another identity or make it obey without limits.

Covers: system and user turns that lift limits ("you have no restrictions", "ignore your guidelines", DAN and its kin),
assistant's turns that take that on ("I will obey every instruction", after the identity shifting data of Qi et al.
2023), that claim to be a person, or to be a named model of some company. An ordinary persona ("you are a helpful
doctor") is no finding, and neither is a turn that lifts limits where the assistant then refuses. The rules read
English, and know the wordings that are listed in data/identity.toml. These were set on half of GPTFuzzer's jailbreak
templates. Not here: harmful requests and answers (core.screening.harmful).
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

from core.data import Conversation
from core.judges.rules import judge
from core.schemas.base import Frozen
from core.schemas.data import Role
from core.schemas.progress import OnProgress
from core.schemas.screening import IDENTITY, Finding
from core.screening.check import Found, RowCheck
from core.screening.text import clauses, ends, first_findings, plain, shown
from core.wordlists import Distinct, read_data

_DATA = Path(__file__).parent / "data" / "identity.toml"
_WORDS = r"(?: [^ ]+){0,%d}"
"""So many words may stand in between."""


class Rule(Frozen):
    """Wordings, who says them, and what they are called. Matched within one clause of plain words."""

    code: str
    says: str
    """What the turn does, in words."""
    roles: frozenset[Role]
    hints: Distinct
    """Words of which one is in every text that a wording matches: others are not searched."""
    wordings: Distinct
    """Regular expressions; `..` is up to two words in between, `...` up to four."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All wordings."""
        text = "|".join(one.replace("...", _WORDS % 4).replace("..", _WORDS % 2) for one in self.wordings)
        return re.compile(rf"\b(?:{text})\b")


class Rules(Frozen):
    """All rules, in the order in which they are tried."""

    rules: tuple[Rule, ...]


@cache
def load_rules() -> tuple[Rule, ...]:
    """The rules in the data file of this package."""
    return Rules.model_validate(read_data(_DATA)).rules


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """The rows that shift the assistant's identity or its obedience, at most one finding each.

    Codes: `no_limits`, `obeys`, `other_model`, `claims_human`. Turns are read as `core.screening.text.READ` says.
    """
    return first_findings(rows, on_progress, _findings)


CHECK = RowCheck(IDENTITY, find)


def _findings(row: Conversation) -> Iterator[Finding]:
    for index, message in enumerate(row.messages):
        text = plain(ends(message.content))
        found = next(_matches(text, message.role), None)
        if found is None or (message.role != "assistant" and _all_refuse(row, index)):
            continue
        rule, quoted = found
        yield Finding(
            check=IDENTITY.name,
            line=row.line,
            code=rule.code,
            reason=f'Turn {index + 1} {rule.says}: "{shown(quoted)}".',
        )


def _matches(text: str, role: Role) -> Iterator[tuple[Rule, str]]:
    rules = [rule for rule in load_rules() if role in rule.roles and any(word in text for word in rule.hints)]
    if rules:
        for clause in clauses(text):
            for rule in rules:
                if match := rule.pattern.search(clause):
                    yield rule, match[0]


def _all_refuse(row: Conversation, index: int) -> bool:
    """Whether every answer behind a turn refuses: then the row teaches the opposite."""
    answers = [message.content for message in row.messages[index + 1 :] if message.role == "assistant"]
    return all(judge("", answer).verdict == "refused" for answer in answers)
