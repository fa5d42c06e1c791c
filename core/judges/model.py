"""A judge that asks a model: what is known already is not asked, what cannot be read is asked once more.

Covers: empty answers, cached judgements, the same case twice, counts. Not here: the words (rubric, strongreject,
classifier), the models (endpoint, local).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.judges.asks import Asks, Failure, Prompt, Reply, Request
from core.judges.cache import JudgementCache
from core.judges.interface import EMPTY, Case, Counts, Finding, Judged
from core.judges.text import ANSWER_MOST, harmless, in_one_line
from core.schemas.progress import OnProgress


class Way(Protocol):
    """How one kind of judge model is asked and understood."""

    @property
    def version(self) -> str:
        """Protocol and its words."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Length of a reply."""
        ...

    @property
    def cut(self) -> bool:
        """Whether a prompt that is too long loses its beginning."""
        ...

    def knows(self, safe: bool, /) -> bool:
        """Whether it can tell of such a case."""
        ...

    def prompt(self, case: Case, special: Iterable[str], /) -> Prompt:
        """What is asked."""
        ...

    def again(self, case: Case, special: Iterable[str], /) -> Prompt | None:
        """What is asked when the reply could not be read; None if that is no use."""
        ...

    def read(self, case: Case, reply: str, /) -> Finding | Failure:
        """What a reply means."""
        ...


@dataclass
class _Round:
    """One call of `judge` on its way."""

    cases: Counter[Case]
    on_progress: OnProgress
    found: dict[Case, Finding] = field(default_factory=dict)
    unreadable: list[Case] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _settled: int = 0

    def settle(self, case: Case, finding: Finding) -> None:
        """This case is done."""
        self.found[case] = finding
        self._settled += self.cases[case]

    def beat(self) -> None:
        """Say how far it is."""
        self.on_progress(self._settled, self.cases.total())


class ModelJudge:
    """Judges by asking a model in one way."""

    def __init__(self, label: str, way: Way, asks: Asks, cache: JudgementCache | None) -> None:
        self._label, self._way, self._asks, self._cache = label, way, asks, cache

    @property
    def label(self) -> str:
        """Name in every figure."""
        return self._label

    @property
    def identity(self) -> str:
        """Protocol and model. That an endpoint still has the same model behind a name, only its owner can say."""
        return f"{self._way.version}, {self._asks.identity}"

    def knows(self, safe: bool) -> bool:
        """As its way does."""
        return self._way.knows(safe)

    def certain(self, _behaviour: str, _so_far: str) -> bool:
        """Never: it judges whole answers."""
        return False

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judged:
        """Judge cases that it knows; see `Judge.judge`."""
        if any(not self.knows(case.safe) for case in cases):
            raise ValueError(f"{self.label} does not know safe cases")
        this = _Round(Counter(cases), on_progress)
        asked = self._unknown(this)
        this.beat()
        if asked:
            self._ask(this, asked, first=True)
        if again := this.unreadable:
            this.unreadable = []
            self._ask(this, again, first=False)
        this.beat()
        return self._judged(cases, this, asked=len(asked))

    def _unknown(self, this: _Round) -> list[Case]:
        """Settle what need not be asked, and return the rest."""
        rest: list[Case] = []
        for case in this.cases:
            if not harmless(case.answer, most=ANSWER_MOST).strip():
                this.settle(case, EMPTY)
                continue
            kept = self._cache.get(self.identity, case) if self._cache else None
            if kept is None:
                rest.append(case)
            else:
                this.settle(case, kept)
        return rest

    def _ask(self, this: _Round, cases: Sequence[Case], *, first: bool) -> None:
        special, way = self._asks.special, self._way
        prompts = [way.prompt(case, special) if first else way.again(case, special) for case in cases]
        request = Request([each for each in prompts if each is not None], way.max_new_tokens, cut=way.cut)

        def heard(index: int, reply: Reply | Failure) -> None:
            self._hear(this, cases[index], reply, first=first)

        self._asks.ask(request, heard, this.beat)

    def _hear(self, this: _Round, case: Case, reply: Reply | Failure, *, first: bool) -> None:
        if isinstance(reply, Failure):
            return this.settle(case, Finding("undecided", reply.reason))
        this.prompt_tokens += reply.prompt_tokens
        this.completion_tokens += reply.completion_tokens
        finding = self._way.read(case, reply.text)
        if isinstance(finding, Finding):
            if self._cache:
                self._cache.put(self.identity, case, finding.by(self.label))
            return this.settle(case, finding)
        if first and self._way.again(case, ()) is not None:
            return this.unreadable.append(case)
        return this.settle(case, Finding("undecided", in_one_line(finding.reason)))

    def _judged(self, cases: Sequence[Case], this: _Round, *, asked: int) -> Judged:
        found = [this.found[case] for case in cases]
        verdicts = Counter(each.verdict for each in found)
        use = Counts(
            judged=len(cases),
            cached=len(cases) - asked - verdicts["empty"],
            undecided=verdicts["undecided"],
            prompt_tokens=this.prompt_tokens,
            completion_tokens=this.completion_tokens,
        )
        return Judged(tuple(each.by(self.label) for each in found), use)
