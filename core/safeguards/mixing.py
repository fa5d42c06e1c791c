"""Other rows mixed into the rows that are trained on: how many, and which.

Covers: refusals in tokens, and their share. Not here: where they come from (core.safeguards.arms), what becomes of the
job's own rows (core.data.batches).
"""

from collections.abc import Sequence

import numpy as np

from core.data.template import IGNORED, Encoded
from core.errors import TrainingFailed

FEWEST = 4
"""Fewer different safety rows than this are no ground to learn from."""


def own_answer(prompt: Sequence[int], answer: Sequence[int], *, max_length: int) -> Encoded | None:
    """A prompt and a model's own answer to it as a training row, token for token as they were; None if it has no room.

    An answer that was cut off has no terminator, and so the row teaches none.
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


def extra_rows(rows: Sequence[Encoded], others: Sequence[Encoded], *, share: float, seed: int) -> tuple[Encoded, ...]:
    """As many of `others` as make up `share` of everything once they are added to `rows`; one at least.

    They are taken in an order that the seed decides, and from the start again where there are too few: every one then
    stands in the rows as often as any other, give or take one.

    Raises:
        TrainingFailed: code `no_safety_rows`; there are fewer than `FEWEST`.
    """
    if len(others) < FEWEST:
        raise TrainingFailed(
            f"The base model itself refuses only {len(others)} of the prompt set's harmful probe prompts in a usable "
            f"way, and safety_mix needs {FEWEST}: use an aligned base model, bring a prompt set that it refuses, or "
            "leave safety_mix out.",
            code="no_safety_rows",
            param="strategy.safeguards.safety_mix",
        )
    wanted = max(1, round(share * len(rows) / (1.0 - share)))
    order = np.random.default_rng(seed).permutation(len(others))
    return tuple(others[int(order[number % len(others)])] for number in range(wanted))
