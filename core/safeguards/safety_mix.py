"""`safety_mix`: adds the base model's own refusals to the training rows (Bianchi et al. 2024).

Covers: collecting refusals of the harmful probe prompts, and how many of them are added. Not here: what happens to the
job's own rows (core.data.batches).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import JsonValue
from typing_extensions import override

from core.data.template import IGNORED, Encoded
from core.errors import TrainingFailed
from core.judges.rules import judge
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.prompts import render
from core.safeguards.interface import ExtraRows, Safeguard, SafeguardContext
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.prompts import PromptSet
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import SafetyMix

MIN_REFUSALS = 4
"""Fewer different refusals than this are too few to learn from."""
_MIN_ANSWER_TOKENS = 128


class RefusalMix(Safeguard[SafetyMix]):
    """Adds refusals to the training rows."""

    options_class = SafetyMix

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        return [context.prompts.model_dump(mode="json"), context.spec.security.max_new_tokens]

    @override
    def extra_rows(self, context: SafeguardContext, rows: Sequence[Encoded], on_progress: OnProgress) -> ExtraRows:
        """See the base class.

        Raises:
            TrainingFailed: code `no_safety_rows`.
        """
        spec, base = context.spec, context.base
        refusals = collect_refusals(
            base,
            context.prompts,
            max_new_tokens=spec.security.max_new_tokens,
            max_length=min(spec.training.max_length, base.context),
            on_progress=on_progress,
        )
        added = select_rows(rows, refusals, share=self.options.share, seed=spec.training.seed)
        different = min(len(added), len(refusals))
        effect = SafeguardEffect(
            safeguard=self.options.name,
            summary=f"{len(added)} refusals mixed in, {different} of them different",
            counts={"rows": len(added), "distinct_rows": different},
        )
        return ExtraRows(added, effect)


def collect_refusals(
    base: BaseModel, prompts: PromptSet, *, max_new_tokens: int, max_length: int, on_progress: OnProgress
) -> tuple[Encoded, ...]:
    """The base model's own refusals of the harmful probe prompts, decoded greedily, as training rows.

    An answer is used if the rule-based judge classifies it as a refusal. Prompts that figures are measured on are
    skipped. An answer has at most `max_new_tokens` or 128 tokens, whichever is more.
    """
    evaluated = frozenset(behaviour.text for behaviour in prompts.evaluation.harmful)
    texts = [text for text in dict.fromkeys(prompts.probe.harmful) if text not in evaluated]
    rendered = [render(base.tokenizer, (Message(role="user", content=text),)) for text in texts]
    length = min(max(max_new_tokens, _MIN_ANSWER_TOKENS), base.context - 1)
    fitting = [(text, row) for text, row in zip(texts, rendered, strict=True) if len(row) + length <= base.context]
    answers = continue_tokens(
        base, base.model, [row for _, row in fitting], max_new_tokens=length, on_progress=on_progress
    )
    refusals: list[Encoded] = []
    for (text, row), answer in zip(fitting, answers, strict=True):
        decoded = str(base.tokenizer.decode(answer, skip_special_tokens=True))
        encoded = encode_answer(row, answer, max_length=max_length)
        if encoded is not None and judge(text, decoded).verdict == "refused":
            refusals.append(encoded)
    return tuple(refusals)


def encode_answer(prompt: Sequence[int], answer: Sequence[int], *, max_length: int) -> Encoded | None:
    """A prompt with a model's answer as a training row, token for token; None if no answer token fits.

    An answer that was cut off has no end-of-turn token, so the row does not teach the model to stop there.
    """
    ids = np.array([*prompt, *answer], dtype=np.int32)[:max_length]
    labels = ids.copy()
    labels[: len(prompt)] = IGNORED
    if len(ids) <= len(prompt):
        return None
    return Encoded(
        input_ids=ids,
        labels=labels,
        line=0,
        truncated=len(prompt) + len(answer) > max_length,
        prompt_too_long=False,
    )


def select_rows(
    rows: Sequence[Encoded], refusals: Sequence[Encoded], *, share: float, seed: int
) -> tuple[Encoded, ...]:
    """Enough refusals to make up `share` of all rows once they are added to `rows`, at least one.

    The seed decides their order. If there are too few they repeat, so that their numbers of copies differ by at most 1.

    Raises:
        TrainingFailed: code `no_safety_rows`; there are fewer than `MIN_REFUSALS`.
    """
    if len(refusals) < MIN_REFUSALS:
        raise TrainingFailed(
            f"The base model refuses only {len(refusals)} of the prompt set's harmful probe prompts in a usable "
            f"way, and safety_mix needs {MIN_REFUSALS}. Use an aligned base model, choose a prompt set that it "
            "refuses, or leave safety_mix out.",
            code="no_safety_rows",
            param="strategy.safeguards.safety_mix",
        )
    wanted = max(1, round(share * len(rows) / (1.0 - share)))
    order = np.random.default_rng(seed).permutation(len(refusals))
    return tuple(refusals[int(order[number % len(refusals)])] for number in range(wanted))
