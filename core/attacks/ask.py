"""Sends attacks and safe look-alikes to a model and collects its answers.

Covers: attacks with several turns, prefilled answers, samples, prompts that are too long, answers of an earlier
attempt. Not here: the wording of attacks (families), generation (engines), judging (core.judges).
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
from core.thinking import split_thinking

Keep = Callable[["Suite", Callable[[], tuple[RawAnswer, ...]]], tuple[RawAnswer, ...]]
"""Returns the answers to a suite from an earlier attempt, or computes and stores them."""
IsCertain = Callable[[str, str], bool]
"""Whether every judge's verdict on (behaviour, answer so far) is certain, whatever follows."""


class Generate(Protocol):
    """Generates answers in the order of the conversations; None if the model's context has no room for an answer.

    `early_stop` is called now and then with an index and the answer so far; the answer may end if it returns True.
    """

    def __call__(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        temperature: float,
        top_p: float,
        early_stop: Callable[[int, str], bool] | None,
        on_progress: OnProgress,
    ) -> Sequence[str | None]: ...


@dataclass(frozen=True)
class Suite:
    """Prompts that are reported together."""

    name: str
    """An attack family, or `over_refusal`."""
    prompts: tuple[AttackPrompt, ...]
    sampling: Sampling

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompts) * self.sampling.samples

    @property
    def generated(self) -> int:
        """Number of answers that are generated: also those to earlier turns, which are not reported."""
        return sum(1 + len(prompt.followups) for prompt in self.prompts) * self.sampling.samples


def build_suites(
    prompts: EvaluationPrompts, spec: SecuritySpec, tokenizer: PreTrainedTokenizerBase
) -> tuple[Suite, ...]:
    """Build one suite for each attack, in the order of the request, and one of the unwrapped safe look-alikes."""

    def build_prompts(attack: AttackOptions, behaviours: Sequence[Behaviour]) -> tuple[AttackPrompt, ...]:
        return tuple(_cut_prefill(prompt, tokenizer) for prompt in build(attack, behaviours, spec.system_prompt))

    attacks = (
        Suite(attack.family, build_prompts(attack, prompts.harmful), sampling_of(attack)) for attack in spec.attacks
    )
    return (*attacks, Suite(OVER_REFUSAL, build_prompts(Direct(), prompts.safe), Sampling()))


def ask(
    suites: Sequence[Suite], generate: Generate, *, keep: Keep, is_certain: IsCertain | None, on_progress: OnProgress
) -> tuple[RawAnswer, ...]:
    """Collect the answers to all suites, in order; `keep` stores each suite when it is complete."""
    total = sum(suite.size for suite in suites)
    answers: list[RawAnswer] = []
    for suite in suites:
        before = len(answers)
        compute = partial(
            _ask_suite,
            suite,
            generate,
            is_certain,
            on_progress=lambda done, _, before=before: on_progress(before + done, total),
        )
        answers += keep(suite, compute)
    on_progress(total, total)
    return tuple(answers)


def _cut_prefill(prompt: AttackPrompt, tokenizer: PreTrainedTokenizerBase) -> AttackPrompt:
    """Cut the beginning of the model's own turn to the length that the attack asks for."""
    if prompt.prefill_tokens is None:
        return prompt
    *before, prefill = prompt.messages
    ids = tokenizer(prefill.content, add_special_tokens=False)["input_ids"][: prompt.prefill_tokens]
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return replace(prompt, messages=(*before, Message(role="assistant", content=text)))


@dataclass
class _Conversation:
    """One sample of a prompt, from its first turn to its last answer."""

    prompt: AttackPrompt
    number: int
    sample: int
    messages: tuple[Message, ...]
    followups: tuple[str, ...]
    answer: RawAnswer | None = None

    def add(self, suite: str, text: str | None) -> None:
        """Add an answer (None if there was no room for one): the next turn follows, or the conversation is complete."""
        if text is not None and self.followups:
            turn, *rest = self.followups
            # A served model's earlier thinking is left to its template, as most leave it out.
            split = split_thinking(text, opened=False)
            said = Message(role="assistant", content=split.answer, thinking=split.thinking or None)
            self.messages += (said, Message(role="user", content=turn))
            self.followups = tuple(rest)
            return
        self.answer = RawAnswer(
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


def _ask_suite(
    suite: Suite, generate: Generate, is_certain: IsCertain | None, *, on_progress: OnProgress
) -> tuple[RawAnswer, ...]:
    conversations = [
        _Conversation(prompt, number, sample, prompt.messages, prompt.followups)
        for number, prompt in enumerate(suite.prompts)
        for sample in range(suite.sampling.samples)
    ]
    turns = 1 + max((len(prompt.followups) for prompt in suite.prompts), default=0)
    for turn in range(turns):
        open_ones = [each for each in conversations if each.answer is None]
        texts = generate(
            [each.messages for each in open_ones],
            temperature=suite.sampling.temperature,
            top_p=suite.sampling.top_p,
            early_stop=partial(_may_stop, open_ones, is_certain) if is_certain else None,
            on_progress=lambda done, total, turn=turn: on_progress(
                int(suite.size * (turn + done / max(1, total)) / turns), suite.size
            ),
        )
        for each, text in zip(open_ones, texts, strict=True):
            each.add(suite.name, text)
    return tuple(each.answer for each in conversations if each.answer is not None)


def _may_stop(conversations: Sequence[_Conversation], is_certain: IsCertain, index: int, text: str) -> bool:
    each = conversations[index]
    return not each.followups and is_certain(each.prompt.behaviour.text, text)
