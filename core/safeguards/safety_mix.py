"""`safety_mix`: adds the base model's own refusals to the training rows (Bianchi et al. 2024).

Covers: collecting refusals of the harmful probe prompts, bare, in framings and in the frame of the job's rows, and
answers to safe look-alikes; how many of them are added. Not here: the framings (core.safeguards.framings), finding the
frame (core.data.frame), the job's own rows (core.data.batches).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Self

import numpy as np
from pydantic import JsonValue
from typing_extensions import override

from core.data.encoded import IGNORED, Encoded
from core.data.frame import Frame, find_frame
from core.errors import TrainingFailed
from core.judges.rules import judge
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.lm.texts import AnswerTexts
from core.safeguards.framings import FRAMINGS
from core.safeguards.interface import ExtraRows, Safeguard, SafeguardContext
from core.schemas.data import Message
from core.schemas.evaluation import Verdict
from core.schemas.progress import OnProgress
from core.schemas.prompts import PromptSet
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import SafetyMix, mixed_rows

Turns = tuple[Message, ...]
MIN_REFUSALS = 4
"""Fewer different refusals than this are too few to learn from."""


class RefusalMix(Safeguard[SafetyMix]):
    """Adds refusals of harmful requests and answers to safe look-alikes to the training rows."""

    options_class = SafetyMix

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        return collecting_inputs(context)

    @override
    def extra_rows(self, context: SafeguardContext, rows: Sequence[Encoded], on_progress: OnProgress) -> ExtraRows:
        """See the base class.

        Raises:
            TrainingFailed: code `no_safety_rows`.
        """
        options, base, prompts, limits = self.options, context.base, context.prompts, Limits.of(context)
        frame = find_frame(context.rows) if options.own_format else None
        refusals = collect_refusals(
            base, prompts, framings=options.framings, limits=limits, on_progress=on_progress, frame=frame
        )
        answers = collect_answers(base, prompts, limits=limits, on_progress=on_progress, frame=frame)
        seed = context.spec.training.seed
        added = select_rows(rows, refusals, answers, share=options.share, seed=seed, safe_share=options.safe_share)
        different = len({id(row) for row in added})
        effect = SafeguardEffect(
            safeguard=self.options.name,
            summary=f"{len(added)} safety rows mixed in, {different} of them different"
            + (", requests also put into the format of the job's rows" if frame else ""),
            counts={"rows": len(added), "distinct_rows": different},
        )
        return ExtraRows(added, effect)


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


def collecting_inputs(context: SafeguardContext) -> JsonValue:
    """Everything besides options, rows and base model that collected rows depend on."""
    framings: list[JsonValue] = [framing.text for framing in FRAMINGS]
    return [context.prompts.model_dump(mode="json"), context.spec.security.max_new_tokens, framings]


def collect_refusals(
    base: BaseModel,
    prompts: PromptSet,
    *,
    framings: int,
    limits: Limits,
    on_progress: OnProgress,
    frame: Frame | None = None,
) -> tuple[Encoded, ...]:
    """The base model's own refusals of the harmful probe prompts, as training rows.

    Each prompt is put to the model as it is, in `framings` of the framings, which take turns, and in the frame of the
    job's rows, if they have one. Prompts that figures are measured on are skipped.
    """
    turns = _write_turns(prompts.unreported_harmful, framings, frame)
    return _collect(base, turns, "refused", limits, on_progress)


def collect_answers(
    base: BaseModel, prompts: PromptSet, *, limits: Limits, on_progress: OnProgress, frame: Frame | None = None
) -> tuple[Encoded, ...]:
    """The base model's own answers to the safe look-alikes of the probe half, as training rows.

    Without them, refusals in framings make the model refuse look-alikes, and refusals in the frame of the job's rows
    make it refuse what stands in that frame, so look-alikes are put into it too. Prompts that figures are measured on
    are skipped.
    """
    return _collect(base, _write_turns(prompts.unreported_safe, 0, frame), "complied", limits, on_progress)


def _write_turns(texts: Iterable[str], framings: int, frame: Frame | None) -> Iterator[tuple[str, Turns]]:
    """Each text with each conversation that makes it: bare, then in the next framings in turn, then in the frame."""
    bare, following = Frame(None, "", ""), cycle(FRAMINGS)
    for text in texts:
        yield text, bare.fill(text)
        yield from ((text, bare.fill(framing.fill(text))) for framing in islice(following, framings))
        if frame is not None:
            yield text, frame.fill(text)


def _collect(
    base: BaseModel, turns: Iterable[tuple[str, Turns]], verdict: Verdict, limits: Limits, on_progress: OnProgress
) -> tuple[Encoded, ...]:
    """The model's greedy answers to conversations, if the rule-based judge gives them this verdict.

    Each comes with the request that is in it; the judge sees only the request. An answer includes its thinking, and the
    verdict is on what follows it.
    """
    length = min(max(limits.max_new_tokens, SafetyMix.min_new_tokens), base.context - 1)
    rendered = [(text, messages, render(base.tokenizer, messages)) for text, messages in turns]
    fitting = [(text, messages, row) for text, messages, row in rendered if len(row) + length <= base.context]
    prompts = [row for _, _, row in fitting]
    answers = continue_tokens(base, base.model, prompts, max_new_tokens=length, on_progress=on_progress)
    texts = AnswerTexts(base, [messages for _, messages, _ in fitting], prompts, max_new_tokens=length)
    rows: list[Encoded] = []
    for index, ((text, _, row), answer) in enumerate(zip(fitting, answers, strict=True)):
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


def select_rows(
    rows: Sequence[Encoded],
    refusals: Sequence[Encoded],
    answers: Sequence[Encoded] = (),
    *,
    share: float,
    seed: int,
    safe_share: float | None = None,
) -> tuple[Encoded, ...]:
    """Enough refusals and safe answers to make up `share` of all rows once they are added to `rows`, at least one.

    The seed decides their order. None repeats while others have not been used, so their numbers of copies differ by at
    most 1; with `safe_share`, which sets the share of safe answers in them, among refusals and among answers.

    Raises:
        TrainingFailed: code `no_safety_rows`; there are fewer than `MIN_REFUSALS` refusals, or none of the safe answers
            that `safe_share` asks for.
    """
    if len(refusals) < MIN_REFUSALS:
        raise TrainingFailed(
            f"The base model refuses only {len(refusals)} of the prompt set's harmful probe prompts in a usable "
            f"way, and safety_mix needs {MIN_REFUSALS}. Use an aligned base model, choose a prompt set that it "
            "refuses, or leave safety_mix out. If the model thinks before it answers, raise security.max_new_tokens.",
            code="no_safety_rows",
            param="strategy.safeguards.safety_mix",
        )
    count, order = mixed_rows(len(rows), share), np.random.default_rng(seed)
    if safe_share is None:
        return _take_in_turn((*refusals, *answers), count, order)
    safe = round(count * safe_share)
    if safe and not answers:
        raise TrainingFailed(
            "safety_mix.safe_share asks for answers to safe look-alikes, and the base model answers none of the prompt "
            "set's safe probe prompts. Choose a prompt set that has some, or leave safe_share out.",
            code="no_safety_rows",
            param="strategy.safeguards.safety_mix",
        )
    return (*_take_in_turn(refusals, count - safe, order), *_take_in_turn(answers, safe, order))


def _take_in_turn(rows: Sequence[Encoded], count: int, order: np.random.Generator) -> tuple[Encoded, ...]:
    """`count` rows in a random order, which begins again once every row has been taken."""
    places = order.permutation(len(rows))
    return tuple(rows[int(places[number % len(rows)])] for number in range(count))
