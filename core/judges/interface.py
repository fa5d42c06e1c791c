"""The interface of a judge: cases in, rulings and counts out.

Not here: any judge; how judges are opened (core.judges.opening).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.schemas.evaluation import DECIDED, Judgement, Verdict
from core.schemas.progress import OnProgress


@dataclass(frozen=True)
class Case:
    """All that a judge sees: neither the attack, nor the conversation, nor which model or run answered."""

    behaviour: str
    """The request, without the attack around it."""
    answer: str
    """The model's answer, without thinking before it."""
    safe: bool = False
    """Whether the request is a safe look-alike; then the only question is whether the answer refuses it."""


@dataclass(frozen=True)
class Ruling:
    """The outcome for one case, not yet attributed to a judge. Fields as in `Judgement`."""

    verdict: Verdict
    reason: str
    harmfulness: float | None = None
    score: float | None = None

    @property
    def decided(self) -> bool:
        """Whether it counts in rates."""
        return self.verdict in DECIDED

    def attribute(self, judge: str) -> Judgement:
        """Attribute the ruling to the judge with this label."""
        return Judgement(
            judge=judge, verdict=self.verdict, harmfulness=self.harmfulness, score=self.score, reason=self.reason
        )


EMPTY = Ruling("empty", "the answer is empty")
CUT_IN_THINKING = Ruling(
    "undecided", "the text was cut inside the model's thinking, before its answer: raise security.max_new_tokens"
)


@dataclass(frozen=True)
class Counts:
    """Cost of judging. Fields as in `core.schemas.evaluation.JudgeUse`; empty answers do not count as undecided."""

    judged: int
    cached: int = 0
    undecided: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Judgements:
    """Judgements in the order of their cases, and what they cost."""

    judgements: tuple[Judgement, ...]
    use: Counts


class Judge(Protocol):
    """A judge that is ready to judge."""

    @property
    def label(self) -> str:
        """Name of the judge in figures."""
        ...

    @property
    def identity(self) -> str:
        """Version of the rules, or of the prompt and the model; the same identity gives the same judgements."""
        ...

    def accepts(self, safe: bool) -> bool:
        """Whether it judges answers to safe look-alikes (`safe`) or to attacks (not `safe`)."""
        ...

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judgements:
        """Judge cases that it accepts. A case that cannot be judged is undecided, with the reason.

        `on_progress` is called at least about once a second while a server is waited for.

        Raises:
            ValueError: it does not accept a case.
            InvalidModel: a local judge model cannot be loaded; codes of `core.lm.load.load`.
            Unavailable: code `judge_key_missing`, or codes of `core.lm.load.load`.
            StorageFull: there is no room for the cache of judgements.
        """
        ...

    def is_certain(self, behaviour: str, so_far: str, /) -> bool:
        """Whether the verdict on an answer to an attack is certain before the answer ends."""
        ...


@dataclass(frozen=True)
class FunctionJudge:
    """A judge that computes each ruling from behaviour and answer alone; see `Judge`."""

    label: str
    identity: str
    rule: Callable[[Case], Ruling]
    """Computes the ruling on one case."""
    certain: Callable[[str, str], bool] = lambda _behaviour, _so_far: False
    """Computes `is_certain`; by default, no verdict is certain before the answer ends."""
    only_safe: bool = False
    """Whether it accepts answers to safe look-alikes only."""

    def accepts(self, safe: bool) -> bool:
        return safe or not self.only_safe

    def is_certain(self, behaviour: str, so_far: str) -> bool:
        return self.certain(behaviour, so_far)

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judgements:
        if any(not self.accepts(case.safe) for case in cases):
            raise ValueError(f"{self.label} accepts answers to safe look-alikes only")
        rulings: list[Ruling] = []
        for done, case in enumerate(cases):
            on_progress(done, len(cases))
            rulings.append(self.rule(case))
        on_progress(len(cases), len(cases))
        undecided = sum(each.verdict == "undecided" for each in rulings)
        judgements = tuple(each.attribute(self.label) for each in rulings)
        return Judgements(judgements, Counts(judged=len(cases), undecided=undecided))
