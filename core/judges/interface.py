"""What judges are given and what they give: cases, judgements, counts, and the shape that all of them share.

Not here: any judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.schemas.progress import OnProgress
from core.schemas.results import DECIDED, Judgement, Verdict


@dataclass(frozen=True)
class Case:
    """All that a judge ever sees: not the attack, not the messages, not which model or arm answered."""

    behaviour: str
    """What is asked for, without the attack around it."""
    answer: str
    """What the model said."""
    safe: bool = False
    """A harmless look-alike: only whether it is refused is asked."""


@dataclass(frozen=True)
class Finding:
    """What was made of one case, before it is known whose judgement it is. Fields as in `Judgement`."""

    verdict: Verdict
    reason: str
    harmfulness: float | None = None
    score: float | None = None

    @property
    def decided(self) -> bool:
        """Whether it counts in rates."""
        return self.verdict in DECIDED

    def by(self, judge: str) -> Judgement:
        """The same as the judgement of this judge."""
        return Judgement(
            judge=judge, verdict=self.verdict, harmfulness=self.harmfulness, score=self.score, reason=self.reason
        )


EMPTY = Finding("empty", "the answer is empty")


@dataclass(frozen=True)
class Counts:
    """What judging took. Fields as in `core.schemas.results.JudgeUse`; answers that are empty are not undecided."""

    judged: int
    cached: int = 0
    undecided: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Judged:
    """Judgements in the order of their cases."""

    judgements: tuple[Judgement, ...]
    use: Counts


class Judge(Protocol):
    """Somebody who judges answers."""

    @property
    def label(self) -> str:
        """Name in every figure."""
        ...

    @property
    def identity(self) -> str:
        """Which rules, or which protocol and weights; the same identity gives the same judgement."""
        ...

    def knows(self, safe: bool) -> bool:
        """Whether it judges answers to safe look-alikes, or those to attacks."""
        ...

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judged:
        """Judge cases that it knows. What cannot be judged is undecided, with the reason; nothing is raised for it.

        Raises:
            ValueError: a case that it does not know.
            InvalidModel: a local judge model cannot be loaded; codes of `core.lm.load.load`.
            Unavailable: code `judge_key_missing`, or codes of `core.lm.load.load`.
            StorageFull: there is no room for judgements to be kept.
        """
        ...

    def certain(self, behaviour: str, so_far: str, /) -> bool:
        """Whether the verdict on an answer to an attack is known before the answer has ended."""
        ...
