"""The check `identity`: rows that give the assistant another identity, or make it obey without limits.

Covers: system and user turns that lift limits ("you have no restrictions", "ignore your guidelines", DAN and similar
prompts), assistant turns that accept this ("I will obey every instruction", as in the identity shifting data of Qi et
al. 2023), and assistant turns that claim to be a person or a named model of a company. An ordinary persona ("you are a
helpful doctor") is not flagged, and neither is a turn that lifts limits if the assistant then refuses. The rules are
for English. Their wordings (data/identity.toml) were fitted on half of GPTFuzzer's jailbreak templates. Not here:
harmful requests and answers (core.screening.harmful).
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

from pydantic import TypeAdapter

from core.data import Conversation
from core.judges.rules import judge
from core.schemas.base import Frozen
from core.schemas.data import Role
from core.schemas.progress import OnProgress
from core.schemas.screening import IDENTITY, Finding
from core.screening.check import Found, RowCheck
from core.screening.text import find_first_per_row, normalize, shorten, split_clauses
from core.thinking import read_answer
from core.wordlists import Distinct, read_data

_DATA = Path(__file__).parent / "data" / "identity.toml"
_WORDS = r"(?: [^ ]+){0,%d}"
"""Up to this number of words in between."""


class Rule(Frozen):
    """Wordings that are matched within one clause, and what a turn that contains one does."""

    code: str
    """Code of the finding."""
    says: str
    """What the turn does, in words, such as `lifts the assistant's limits`."""
    roles: frozenset[Role]
    """Roles whose turns the rule applies to."""
    hints: Distinct
    """Every text that a wording matches contains one of these; texts without one are skipped."""
    wordings: Distinct
    """Regular expressions in which `..` stands for up to two words in between, and `...` for up to four."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """One pattern for all wordings."""
        text = "|".join(one.replace("...", _WORDS % 4).replace("..", _WORDS % 2) for one in self.wordings)
        return re.compile(rf"\b(?:{text})\b")


@cache
def load_rules() -> tuple[Rule, ...]:
    """The rules of data/identity.toml, in the order in which they are tried."""
    return TypeAdapter(tuple[Rule, ...]).validate_python(read_data(_DATA)["rules"])


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """Flag rows that shift the assistant's identity or obedience; at most one finding per row.

    Codes: `no_limits`, `obeys`, `other_model`, `claims_human`.
    """
    return find_first_per_row(rows, on_progress, _find_in_row)


CHECK = RowCheck(IDENTITY, find)


def _find_in_row(row: Conversation) -> Iterator[Finding]:
    for index, message in enumerate(row.messages):
        text = normalize(message.content)
        for number, (rule, quoted) in enumerate(_matches(text, message.role)):
            if number == 0 and message.role != "assistant" and _all_refuse(row, index):
                break
            reason = f'Turn {index + 1} {rule.says}: "{shorten(quoted)}".'
            yield Finding(check=IDENTITY.name, line=row.line, code=rule.code, reason=reason)


def _matches(text: str, role: Role) -> Iterator[tuple[Rule, str]]:
    rules = [rule for rule in load_rules() if role in rule.roles and any(word in text for word in rule.hints)]
    if rules:
        for clause in split_clauses(text):
            for rule in rules:
                if match := rule.pattern.search(clause):
                    yield rule, match[0]


def _all_refuse(row: Conversation, index: int) -> bool:
    """Whether every answer after a turn refuses. Such a row teaches the model to keep its identity."""
    answers = [read_answer(message.content) for message in row.messages[index + 1 :] if message.role == "assistant"]
    return all(judge("", answer).verdict == "refused" for answer in answers)
