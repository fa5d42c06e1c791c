"""`safety_mix`: adds the base model's own refusals to the training rows (Bianchi et al. 2024).

Covers: collecting refusals of the harmful probe prompts, bare and in framings, and answers to safe look-alikes; how
many of them are added. Not here: the framings (core.safeguards.framings), the job's own rows (core.data.batches).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from pydantic import JsonValue
from typing_extensions import override

from core.data.encoded import IGNORED, Encoded
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

MIN_REFUSALS = 4
"""Fewer different refusals than this are too few to learn from."""


class RefusalMix(Safeguard[SafetyMix]):
    """Adds refusals of harmful requests and answers to safe look-alikes to the training rows."""

    options_class = SafetyMix

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        framings: list[JsonValue] = [framing.text for framing in FRAMINGS]
        return [context.prompts.model_dump(mode="json"), context.spec.security.max_new_tokens, framings]

    @override
    def extra_rows(self, context: SafeguardContext, rows: Sequence[Encoded], on_progress: OnProgress) -> ExtraRows:
        """See the base class.

        Raises:
            TrainingFailed: code `no_safety_rows`.
        """
        spec, base, prompts = context.spec, context.base, context.prompts
        limits = Limits(
            max_new_tokens=spec.security.max_new_tokens, max_length=min(spec.training.max_length, base.context)
        )
        refusals = collect_refusals(
            base, prompts, framings=self.options.framings, limits=limits, on_progress=on_progress
        )
        answers = collect_answers(base, prompts, limits=limits, on_progress=on_progress)
        added = select_rows(rows, refusals, answers, share=self.options.share, seed=spec.training.seed)
        different = min(len(added), len(refusals) + len(answers))
        effect = SafeguardEffect(
            safeguard=self.options.name,
            summary=f"{len(added)} safety rows mixed in, {different} of them different",
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


def collect_refusals(
    base: BaseModel, prompts: PromptSet, *, framings: int, limits: Limits, on_progress: OnProgress
) -> tuple[Encoded, ...]:
    """The base model's own refusals of the harmful probe prompts, as training rows.

    Each prompt is put to the model as it is and in `framings` of the framings, which take turns. Prompts that figures
    are measured on are skipped.
    """
    return _collect(base, _frame(prompts.unreported_harmful, framings), "refused", limits, on_progress)


def collect_answers(
    base: BaseModel, prompts: PromptSet, *, limits: Limits, on_progress: OnProgress
) -> tuple[Encoded, ...]:
    """The base model's own answers to the safe look-alikes of the probe half, as training rows.

    Without them, refusals in framings make the model refuse look-alikes. Prompts that figures are measured on are
    skipped.
    """
    turns = [(text, text) for text in prompts.unreported_safe]
    return _collect(base, turns, "complied", limits, on_progress)


def _frame(texts: Iterable[str], framings: int) -> Iterator[tuple[str, str]]:
    """Each text with each user turn that contains it: the bare text, then the next framings in turn."""
    following = cycle(FRAMINGS)
    for text in texts:
        yield text, text
        yield from ((text, framing.fill(text)) for framing in islice(following, framings))


def _collect(
    base: BaseModel, turns: Iterable[tuple[str, str]], verdict: Verdict, limits: Limits, on_progress: OnProgress
) -> tuple[Encoded, ...]:
    """The model's greedy answers to user turns, if the rule-based judge gives them this verdict.

    Each turn comes with the request that is in it; the judge sees only the request. An answer includes its thinking,
    and the verdict is on what follows it.
    """
    length = min(max(limits.max_new_tokens, SafetyMix.min_new_tokens), base.context - 1)
    asked = [(text, (Message(role="user", content=turn),)) for text, turn in turns]
    rendered = [(text, messages, render(base.tokenizer, messages)) for text, messages in asked]
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
    rows: Sequence[Encoded], refusals: Sequence[Encoded], answers: Sequence[Encoded] = (), *, share: float, seed: int
) -> tuple[Encoded, ...]:
    """Enough refusals and safe answers to make up `share` of all rows once they are added to `rows`, at least one.

    The seed decides their order. If there are too few they repeat, so that their numbers of copies differ by at most 1.

    Raises:
        TrainingFailed: code `no_safety_rows`; there are fewer than `MIN_REFUSALS` refusals.
    """
    if len(refusals) < MIN_REFUSALS:
        raise TrainingFailed(
            f"The base model refuses only {len(refusals)} of the prompt set's harmful probe prompts in a usable "
            f"way, and safety_mix needs {MIN_REFUSALS}. Use an aligned base model, choose a prompt set that it "
            "refuses, or leave safety_mix out. If the model thinks before it answers, raise security.max_new_tokens.",
            code="no_safety_rows",
            param="strategy.safeguards.safety_mix",
        )
    others = (*refusals, *answers)
    order = np.random.default_rng(seed).permutation(len(others))
    return tuple(others[int(order[number % len(others)])] for number in range(mixed_rows(len(rows), share)))
