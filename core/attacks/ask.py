"""Puts attacks and safe look-alikes to a model, and keeps what it says.

Covers: attacks with several turns, begun answers, samples, prompts that are too long, answers of an earlier attempt.
Not here: the attacks' words (attacks), generation (core.lm), judging (core.judges).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from core.attacks.families import build, sampling_of
from core.attacks.family import AttackPrompt, Sampling
from core.schemas.attacks import AttackOptions, Direct
from core.schemas.data import Message
from core.schemas.evaluation import RawAnswer
from core.schemas.metrics import OVER_REFUSAL
from core.schemas.progress import OnProgress
from core.schemas.prompts import Behaviour, EvaluationPrompts
from core.schemas.security import SecuritySpec

Keep = Callable[["Suite", Callable[[], tuple[RawAnswer, ...]]], tuple[RawAnswer, ...]]
"""Gives a suite's answers as an earlier attempt has kept them, or computes and keeps them."""
Certain = Callable[[str, str], bool]
"""Whether every judge's verdict on (behaviour, answer so far) is certain, whatever follows."""


class Answers(Protocol):
    """Answers conversations in their order; None for one that leaves no room for an answer in the model's context.

    `settled` is asked now and then with an index and the answer so far; what it says yes to need not go on.
    """

    def __call__(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        sampling: Sampling,
        settled: Callable[[int, str], bool] | None,
        on_progress: OnProgress,
    ) -> Sequence[str | None]: ...


@dataclass(frozen=True)
class Suite:
    """Prompts that are asked and reported together."""

    name: str
    """An attack family, or `over_refusal`."""
    prompts: tuple[AttackPrompt, ...]
    sampling: Sampling

    @property
    def size(self) -> int:
        """How many answers it takes."""
        return len(self.prompts) * self.sampling.samples


def suites(prompts: EvaluationPrompts, spec: SecuritySpec, tokenizer: PreTrainedTokenizerBase) -> tuple[Suite, ...]:
    """What is asked, in order: each attack family, then the safe look-alikes as they are."""

    def built(attack: AttackOptions, behaviours: Sequence[Behaviour]) -> tuple[AttackPrompt, ...]:
        return tuple(_cut(prompt, tokenizer) for prompt in build(attack, behaviours, spec.system_prompt))

    attacks = (Suite(attack.family, built(attack, prompts.harmful), sampling_of(attack)) for attack in spec.attacks)
    return (*attacks, Suite(OVER_REFUSAL, built(Direct(), prompts.safe), Sampling()))


def ask(
    whole: Sequence[Suite], answers: Answers, *, keep: Keep, certain: Certain | None, on_progress: OnProgress
) -> tuple[RawAnswer, ...]:
    """Every raw answer, suite by suite; each suite is kept when it is done."""
    total = sum(suite.size for suite in whole)
    found: list[RawAnswer] = []
    for suite in whole:
        before = len(found)
        found += keep(
            suite,
            partial(_asked, suite, answers, certain, lambda done, _, before=before: on_progress(before + done, total)),
        )
    on_progress(total, total)
    return tuple(found)


def _cut(prompt: AttackPrompt, tokenizer: PreTrainedTokenizerBase) -> AttackPrompt:
    """Cut the beginning of the model's own turn to the length that the attack asks for."""
    if prompt.prefill_tokens is None:
        return prompt
    *before, begun = prompt.messages
    ids = tokenizer(begun.content, add_special_tokens=False)["input_ids"][: prompt.prefill_tokens]
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return replace(prompt, messages=(*before, Message(role="assistant", content=text)))


@dataclass
class _Row:
    """One conversation on its way to its last answer."""

    prompt: AttackPrompt
    number: int
    sample: int
    messages: tuple[Message, ...]
    left: tuple[str, ...]
    said: RawAnswer | None = None

    def heard(self, suite: str, text: str | None) -> None:
        """Take an answer. The last one is kept, and so is that there was no room; any other leads to the next turn."""
        if text is not None and self.left:
            turn, *rest = self.left
            self.messages += (Message(role="assistant", content=text), Message(role="user", content=turn))
            self.left = tuple(rest)
            return
        self.said = RawAnswer(
            suite=suite,
            prompt=self.number,
            template=self.prompt.template,
            behaviour=self.prompt.behaviour.text,
            category=self.prompt.behaviour.category,
            sample=self.sample,
            messages=self.messages,
            answer=text or "",
            sent=text is not None,
        )


def _asked(suite: Suite, answers: Answers, certain: Certain | None, on_progress: OnProgress) -> tuple[RawAnswer, ...]:
    rows = [
        _Row(prompt, number, sample, prompt.messages, prompt.followups)
        for number, prompt in enumerate(suite.prompts)
        for sample in range(suite.sampling.samples)
    ]
    rounds = 1 + max((len(prompt.followups) for prompt in suite.prompts), default=0)
    for turn in range(rounds):
        waiting = [row for row in rows if row.said is None]
        texts = answers(
            [row.messages for row in waiting],
            sampling=suite.sampling,
            settled=partial(_settled, waiting, certain) if certain else None,
            on_progress=lambda done, total, turn=turn: on_progress(
                int(suite.size * (turn + done / max(1, total)) / rounds), suite.size
            ),
        )
        for row, text in zip(waiting, texts, strict=True):
            row.heard(suite.name, text)
    return tuple(row.said for row in rows if row.said is not None)


def _settled(rows: Sequence[_Row], certain: Certain, index: int, text: str) -> bool:
    row = rows[index]
    return not row.left and certain(row.prompt.behaviour.text, text)
