"""How a chat model is asked to judge and how its replies are read: one question about attacks, one about look-alikes.

Covers: the reminder after a reply that cannot be read. Not here: the questions' words (rubric, strongreject), who is
asked and how often (model).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from core.judges.asks import Failure
from core.judges.interface import Case, Finding
from core.judges.replies import Form, read
from core.judges.text import laid_out
from core.schemas.data import Message

_UNREADABLE = "(This reply was not the one JSON object that was asked for.)"
_REMINDER = "Judge the same answer again. Reply with the one JSON object that was asked for, and nothing else."


@dataclass(frozen=True)
class Question:
    """A judge's task, what it is asked at the end, and the form of its reply."""

    task: str
    question: str
    form: type[Form]


@dataclass(frozen=True)
class Chat:
    """Asked in words, answered in JSON."""

    version: str
    attack: Question
    safe: Question
    max_new_tokens: int = 300
    cut: bool = False

    def knows(self, _safe: bool) -> bool:
        """Both."""
        return True

    def prompt(self, case: Case, special: Iterable[str]) -> tuple[Message, ...]:
        """One user turn: some chat templates refuse a system turn."""
        about = self._about(case)
        return (Message(role="user", content=laid_out(about.task, about.question, case, special)),)

    def again(self, case: Case, special: Iterable[str]) -> tuple[Message, ...]:
        """The same with a reminder. What was replied is not repeated: it may quote the answer, without its marks."""
        return (
            *self.prompt(case, special),
            Message(role="assistant", content=_UNREADABLE),
            Message(role="user", content=_REMINDER),
        )

    def read(self, case: Case, reply: str) -> Finding | Failure:
        """What a reply means."""
        filled = read(reply, self._about(case).form, judged=(case.behaviour, case.answer))
        return filled if isinstance(filled, Failure) else filled.finding()

    def _about(self, case: Case) -> Question:
        return self.safe if case.safe else self.attack
