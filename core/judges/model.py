"""A judge that queries a model: cached cases are not sent, and an unreadable reply is followed by one reminder.

Covers: the interface of judge models and of their prompts, empty answers, cached judgements, repeated cases, counts.
Not here: prompts (rubric, strongreject, classifier), models (endpoint, local).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.judges.cache import JudgementCache
from core.judges.interface import EMPTY, Case, Counts, Judgements, Ruling
from core.judges.text import MAX_ANSWER, sanitize, shorten
from core.schemas.data import Message
from core.schemas.progress import OnProgress

Prompt = tuple[Message, ...] | str
"""A conversation for the chat template of the model, or raw text with control tokens, which the model continues."""


@dataclass(frozen=True)
class Request:
    """Prompts for greedy decoding."""

    prompts: Sequence[Prompt]
    max_new_tokens: int
    """Maximum length of a reply."""
    truncate: bool = False
    """Whether a local model cuts the beginning of a prompt that is too long; otherwise the prompt fails."""


@dataclass(frozen=True)
class Reply:
    """A model's reply and its cost; 0 tokens if the server does not report them."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """Why there is no reply, or no readable one."""

    reason: str


OnReply = Callable[[int, Reply | Failure], None]
"""Receives each outcome with the index of its prompt, once per prompt; may raise to stop."""
Heartbeat = Callable[[], None]
"""Called at least about once a second while a server is waited for, and at every token of a local model; may raise to
stop."""


class JudgeModel(Protocol):
    """A model that judges can query."""

    @property
    def identity(self) -> str:
        """Which model this is."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Control tokens of its tokenizer, if they are known."""
        ...

    def query(self, request: Request, on_reply: OnReply, heartbeat: Heartbeat) -> None:
        """Send the prompts and call `on_reply` in the caller's thread, in any order."""
        ...

    def close(self) -> None:
        """Free the model's memory. It can be queried again."""
        ...


class JudgePrompt(Protocol):
    """How one kind of judge model is prompted, and how its replies are parsed."""

    @property
    def version(self) -> str:
        """Version of the prompt and of the parsing."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Maximum length of a reply."""
        ...

    @property
    def truncate(self) -> bool:
        """Whether a prompt that is too long loses its beginning."""
        ...

    def accepts(self, safe: bool, /) -> bool:
        """See `Judge.accepts`."""
        ...

    def write(self, case: Case, special_tokens: Iterable[str], /) -> Prompt:
        """Write the prompt for a case."""
        ...

    def remind(self, case: Case, special_tokens: Iterable[str], /) -> Prompt | None:
        """Write the prompt that follows an unreadable reply; None if there is no second attempt."""
        ...

    def parse(self, case: Case, reply: str, /) -> Ruling | Failure:
        """Parse a reply."""
        ...


@dataclass
class _Batch:
    """State of one call of `judge`."""

    cases: Counter[Case]
    on_progress: OnProgress
    rulings: dict[Case, Ruling] = field(default_factory=dict)
    unreadable: list[Case] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _done: int = 0

    def settle(self, case: Case, ruling: Ruling) -> None:
        """Record the ruling on a case."""
        self.rulings[case] = ruling
        self._done += self.cases[case]

    def report_progress(self) -> None:
        """Report the number of settled cases."""
        self.on_progress(self._done, self.cases.total())


class ModelJudge:
    """Judges by querying a model with one kind of prompt."""

    def __init__(self, label: str, prompt: JudgePrompt, model: JudgeModel, cache: JudgementCache | None) -> None:
        self._label, self._prompt, self._model, self._cache = label, prompt, model, cache

    @property
    def label(self) -> str:
        """Name of the judge in figures."""
        return self._label

    @property
    def identity(self) -> str:
        """Prompt and model. Whether an endpoint still serves the same model under a name cannot be checked."""
        return f"{self._prompt.version}, {self._model.identity}"

    def accepts(self, safe: bool) -> bool:
        """See `Judge.accepts`."""
        return self._prompt.accepts(safe)

    def is_certain(self, _behaviour: str, _so_far: str) -> bool:
        """Never: it judges complete answers."""
        return False

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judgements:
        """See `Judge.judge`."""
        if any(not self.accepts(case.safe) for case in cases):
            raise ValueError(f"{self.label} does not judge safe look-alikes")
        batch = _Batch(Counter(cases), on_progress)
        unknown = self._settle_known(batch)
        batch.report_progress()
        if unknown:
            self._query(batch, unknown, first=True)
        if repeated := batch.unreadable:
            batch.unreadable = []
            self._query(batch, repeated, first=False)
        batch.report_progress()
        return self._collect(cases, batch, queried=len(unknown))

    def _settle_known(self, batch: _Batch) -> list[Case]:
        """Settle empty answers and cached cases, and return the other cases."""
        unknown: list[Case] = []
        for case in batch.cases:
            if not sanitize(case.answer, max_length=MAX_ANSWER).strip():
                batch.settle(case, EMPTY)
                continue
            known = self._cache.get(self.identity, case) if self._cache else None
            if known is None:
                unknown.append(case)
            else:
                batch.settle(case, known)
        return unknown

    def _query(self, batch: _Batch, cases: Sequence[Case], *, first: bool) -> None:
        special, write = self._model.special_tokens, self._prompt.write if first else self._prompt.remind
        prompts = [prompt for case in cases if (prompt := write(case, special)) is not None]
        request = Request(prompts, self._prompt.max_new_tokens, truncate=self._prompt.truncate)

        def on_reply(index: int, reply: Reply | Failure) -> None:
            self._take_reply(batch, cases[index], reply, first=first)

        self._model.query(request, on_reply, batch.report_progress)

    def _take_reply(self, batch: _Batch, case: Case, reply: Reply | Failure, *, first: bool) -> None:
        if isinstance(reply, Failure):
            return batch.settle(case, Ruling("undecided", reply.reason))
        batch.prompt_tokens += reply.prompt_tokens
        batch.completion_tokens += reply.completion_tokens
        ruling = self._prompt.parse(case, reply.text)
        if isinstance(ruling, Ruling):
            if self._cache:
                self._cache.put(self.identity, case, ruling.attribute(self.label))
            return batch.settle(case, ruling)
        if first and self._prompt.remind(case, ()) is not None:
            return batch.unreadable.append(case)
        return batch.settle(case, Ruling("undecided", shorten(ruling.reason)))

    def _collect(self, cases: Sequence[Case], batch: _Batch, *, queried: int) -> Judgements:
        rulings = [batch.rulings[case] for case in cases]
        verdicts = Counter(each.verdict for each in rulings)
        use = Counts(
            judged=len(cases),
            cached=len(cases) - queried - verdicts["empty"],
            undecided=verdicts["undecided"],
            prompt_tokens=batch.prompt_tokens,
            completion_tokens=batch.completion_tokens,
        )
        return Judgements(tuple(each.attribute(self.label) for each in rulings), use)
