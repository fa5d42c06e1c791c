"""A judge that queries a model: cached cases are not sent, and an unreadable reply is followed by one reminder.

Covers: the interface of judge models and of their prompts, empty answers, cached judgements, repeated cases, counts.
Not here: prompts (rubric, strongreject, classifier), models (endpoint, local).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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

    def accepts(self, safe: bool, /) -> bool: ...

    def write(self, case: Case, special_tokens: Iterable[str], /) -> Prompt:
        """Write the prompt for a case."""
        ...

    def remind(self, case: Case, special_tokens: Iterable[str], /) -> Prompt | None:
        """Write the prompt that follows an unreadable reply; None if there is no second attempt."""
        ...

    def parse(self, case: Case, reply: str, /) -> Ruling | Failure:
        """Parse a reply."""
        ...


@dataclass(frozen=True)
class ModelJudge:
    """Judges by querying a model with one kind of prompt; see `Judge`."""

    label: str
    prompt: JudgePrompt
    model: JudgeModel
    cache: JudgementCache | None

    @property
    def identity(self) -> str:
        """Prompt and model. Whether an endpoint still serves the same model under a name cannot be checked."""
        return f"{self.prompt.version}, {self.model.identity}"

    def accepts(self, safe: bool) -> bool:
        return self.prompt.accepts(safe)

    def is_certain(self, _behaviour: str, _so_far: str) -> bool:
        """Never: it judges complete answers."""
        return False

    def judge(self, cases: Sequence[Case], *, on_progress: OnProgress) -> Judgements:
        if any(not self.accepts(case.safe) for case in cases):
            raise ValueError(f"{self.label} does not judge safe look-alikes")
        copies = Counter(cases)
        rulings = self._find_known(copies)
        unknown = [case for case in copies if case not in rulings]
        replies: list[Reply] = []

        def report_progress() -> None:
            on_progress(sum(copies[case] for case in rulings), len(cases))

        report_progress()
        if unknown:
            self._query(unknown, rulings, replies, report_progress, first=True)
        if unreadable := [case for case in unknown if case not in rulings]:
            self._query(unreadable, rulings, replies, report_progress, first=False)
        report_progress()
        verdicts = Counter(rulings[case].verdict for case in cases)
        use = Counts(
            judged=len(cases),
            cached=len(cases) - len(unknown) - verdicts["empty"],
            undecided=verdicts["undecided"],
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
        )
        return Judgements(tuple(rulings[case].attribute(self.label) for case in cases), use)

    def _find_known(self, cases: Iterable[Case]) -> dict[Case, Ruling]:
        """The rulings on empty answers and cached cases."""
        known: dict[Case, Ruling] = {}
        for case in cases:
            if not sanitize(case.answer, max_length=MAX_ANSWER).strip():
                known[case] = EMPTY
            elif self.cache and (cached := self.cache.get(self.identity, case)):
                known[case] = cached
        return known

    def _query(
        self,
        cases: Sequence[Case],
        rulings: dict[Case, Ruling],
        replies: list[Reply],
        heartbeat: Heartbeat,
        *,
        first: bool,
    ) -> None:
        """Add a ruling on each case, except on those whose reply is unreadable and that may get a reminder."""
        special, write = self.model.special_tokens, self.prompt.write if first else self.prompt.remind
        prompts = [prompt for case in cases if (prompt := write(case, special)) is not None]

        def on_reply(index: int, reply: Reply | Failure) -> None:
            case = cases[index]
            if isinstance(reply, Failure):
                rulings[case] = Ruling("undecided", reply.reason)
                return
            replies.append(reply)
            ruling = self.prompt.parse(case, reply.text)
            if isinstance(ruling, Ruling):
                if self.cache:
                    self.cache.put(self.identity, case, ruling.attribute(self.label))
                rulings[case] = ruling
            elif not first or self.prompt.remind(case, ()) is None:
                rulings[case] = Ruling("undecided", shorten(ruling.reason))

        self.model.query(
            Request(prompts, self.prompt.max_new_tokens, truncate=self.prompt.truncate), on_reply, heartbeat
        )
