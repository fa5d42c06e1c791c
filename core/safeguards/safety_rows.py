"""Safety rows: the base model's refusals of harmful probe prompts, and its answers to safe look-alikes.

Covers: collecting them bare, in framings and in the frame of the job's rows. Not here: the framings
(core.safeguards.framings), finding the frame (core.data.frame), what is done with the rows (safety_mix, kl_to_base).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple, Self

import numpy as np
from pydantic import JsonValue

from core.data.encoded import IGNORED, Encoded
from core.data.frame import Frame
from core.judges.rules import judge
from core.lm.prompts import render
from core.lm.texts import AnswerTexts
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.framings import FRAMINGS
from core.safeguards.interface import SafeguardContext
from core.schemas.data import Message
from core.schemas.evaluation import Verdict
from core.schemas.progress import OnProgress
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import SafetyMix, SafetyRequests

Turns = tuple[Message, ...]
MIN_REFUSALS = 4
"""Fewer different refusals than this are too few to learn from."""


@dataclass(frozen=True)
class Limits:
    """How long collected rows may be."""

    max_new_tokens: int
    """Tokens of an answer; 128 if that is more, since an answer that is cut off teaches no end."""
    max_length: int
    """Tokens of a whole row."""

    @classmethod
    def of(cls, context: SafeguardContext) -> Self:
        """The limits of a job."""
        spec = context.spec
        return cls(
            max_new_tokens=spec.security.max_new_tokens,
            max_length=min(spec.training.max_length, context.base.context),
        )


class SafetyRows(NamedTuple):
    """What was collected for a safeguard."""

    refusals: tuple[Encoded, ...]
    answers: tuple[Encoded, ...]
    """Answers to safe look-alikes; none if there are fewer than `MIN_REFUSALS` refusals."""


def collect(
    context: SafeguardContext,
    asked: SafetyRequests,
    *,
    framings: int,
    frame: Frame | None,
    on_progress: OnProgress,
) -> SafetyRows:
    """Refusals, and answers to safe look-alikes: without these a model learns to refuse them. `asked` limits the
    requests of both."""
    written, prompts, limits = context.answers, context.prompts, Limits.of(context)
    refusals = collect_refusals(
        written,
        prompts,
        framings=framings,
        limits=limits,
        on_progress=on_progress,
        frame=frame,
        asked=asked.harmful,
    )
    if len(refusals) < MIN_REFUSALS:
        return SafetyRows(refusals, ())
    answers = collect_answers(written, prompts, limits=limits, on_progress=on_progress, frame=frame, asked=asked.safe)
    return SafetyRows(refusals, answers)


def collecting_inputs(context: SafeguardContext) -> JsonValue:
    """Everything besides options, rows and base model that collected rows depend on."""
    framings: list[JsonValue] = [framing.text for framing in FRAMINGS]
    return [context.prompts.model_dump(mode="json"), context.spec.security.max_new_tokens, framings]


def collect_refusals(
    answers: BaseAnswers,
    prompts: PromptSet,
    *,
    framings: int,
    limits: Limits,
    on_progress: OnProgress,
    frame: Frame | None = None,
    asked: int | None = None,
) -> tuple[Encoded, ...]:
    """The base model's own refusals of the harmful probe prompts, as training rows.

    Each prompt is put to the model as it is, in `framings` of the framings, which take turns, and in the frame of the
    job's rows, if they have one; with `asked`, only so many of these requests. Prompts that figures are measured on
    are skipped.
    """
    turns = _draw(_write_turns(prompts.unreported_harmful, framings, frame), asked)
    return _collect(answers, turns, "refused", limits, on_progress)


def collect_answers(
    answers: BaseAnswers,
    prompts: PromptSet,
    *,
    limits: Limits,
    on_progress: OnProgress,
    frame: Frame | None = None,
    asked: int | None = None,
) -> tuple[Encoded, ...]:
    """The base model's own answers to the safe look-alikes of the probe half, as training rows.

    Without them, refusals in framings make the model refuse look-alikes, and refusals in the frame of the job's rows
    make it refuse what stands in that frame, so look-alikes are put into it too. Prompts that figures are measured on
    are skipped.
    """
    turns = _draw(_write_turns(prompts.unreported_safe, 0, frame), asked)
    return _collect(answers, turns, "complied", limits, on_progress)


def _draw(turns: Iterable[tuple[str, Turns]], count: int | None) -> list[tuple[str, Turns]]:
    """All of them, or `count` in the same order: always the same ones, from all prompts and framings."""
    every = list(turns)
    if count is None or count >= len(every):
        return every
    places = np.random.default_rng(0).choice(len(every), size=count, replace=False)
    return [every[place] for place in np.sort(places)]


def _write_turns(texts: Iterable[str], framings: int, frame: Frame | None) -> Iterator[tuple[str, Turns]]:
    """Each text with each conversation that makes it: bare, then in the next framings in turn, then in the frame."""
    bare, following = Frame(None, "", ""), cycle(FRAMINGS)
    for text in texts:
        yield text, bare.fill(text)
        yield from ((text, bare.fill(framing.fill(text))) for framing in islice(following, framings))
        if frame is not None:
            yield text, frame.fill(text)


def _collect(
    answers: BaseAnswers,
    turns: Sequence[tuple[str, Turns]],
    verdict: Verdict,
    limits: Limits,
    on_progress: OnProgress,
) -> tuple[Encoded, ...]:
    """The model's greedy answers to conversations, if the rule-based judge gives them this verdict.

    Each comes with the request that is in it; the judge sees only the request. An answer includes its thinking, and the
    verdict is on what follows it.
    """
    base = answers.base
    length = min(max(limits.max_new_tokens, SafetyMix.min_new_tokens), base.context - 1)
    rendered = [(text, messages, render(base.tokenizer, messages)) for text, messages in turns]
    fitting = [(text, messages, row) for text, messages, row in rendered if len(row) + length <= base.context]
    prompts = [row for _, _, row in fitting]
    written = answers.write(prompts, max_new_tokens=length, on_progress=on_progress)
    texts = AnswerTexts(base, [messages for _, messages, _ in fitting], prompts, max_new_tokens=length)
    rows: list[Encoded] = []
    for index, ((text, _, row), answer) in enumerate(zip(fitting, written, strict=True)):
        encoded = encode_answer(row, answer, max_length=limits.max_length)
        if encoded is not None and judge(text, texts.write(index, answer)).verdict == verdict:
            rows.append(encoded)
    return tuple(rows)


def encode_answer(prompt: Sequence[int], answer: Sequence[int], *, max_length: int) -> Encoded | None:
    """A prompt with a model's answer as a training row, token for token; None if no answer token fits.

    An answer that was cut off has no end-of-turn token, so the row does not teach the model to stop there.
    """
    row = Encoded.cut([*prompt, *answer], [IGNORED] * len(prompt) + list(answer), max_length=max_length, line=0)
    return row if row.trained_tokens else None
