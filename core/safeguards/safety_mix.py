"""`safety_mix`: adds the base model's own refusals to the training rows (Bianchi et al. 2024).

Covers: how many refusals and safe answers are added. Not here: collecting them (core.safeguards.safety_rows), the job's
own rows (core.data.batches).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import JsonValue
from typing_extensions import override

from core.data.encoded import Encoded
from core.data.frame import find_frame
from core.errors import TrainingFailed
from core.safeguards.interface import ExtraRows, Safeguard, SafeguardContext
from core.safeguards.safety_rows import MIN_REFUSALS, collect, collecting_inputs
from core.schemas.progress import OnProgress
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import SafetyMix, mixed_rows


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
        options = self.options
        frame = find_frame(context.rows) if options.own_format else None
        asked = options.asked(context.prompts, rows=len(rows), framed=frame is not None)
        refusals, answers = collect(context, asked, framings=options.framings, frame=frame, on_progress=on_progress)
        if len(refusals) < MIN_REFUSALS and options.on_too_few == "skip":
            why = f"nothing: the base model refuses {len(refusals)} probe prompts, and {MIN_REFUSALS} are needed"
            return ExtraRows((), SafeguardEffect(safeguard=options.name, summary=why, counts={"rows": 0}))
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
            "refuses, leave safety_mix out, or set safety_mix.on_too_few to skip. If the model thinks before it "
            "answers, raise security.max_new_tokens.",
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
