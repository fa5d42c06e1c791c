"""Safeguards: what can be combined with any strategy, before, during and after training and when the model is served.

A safeguard is a subclass of `Safeguard` that is registered here; its options are a subclass of `SafeguardOptions`. The
functions apply all safeguards of one run, in the order in which they were registered. Not here: how often and when
these functions are called (core.pipeline).
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeVar

from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel

from core.data import Conversation
from core.data.encoded import Encoded
from core.safeguards.answer_preview import AnswerInPrompt
from core.safeguards.average_weights import WeightAverage
from core.safeguards.constrained_first_tokens import ConstrainedLoss
from core.safeguards.interface import ExtraRows, Safeguard, SafeguardContext, TrainedContext
from core.safeguards.keep_safe_weights import LastSafeWeights
from core.safeguards.kl_to_base import KlLoss
from core.safeguards.project_to_safe import AlignmentProjection
from core.safeguards.safe_template import PromptAfterTraining
from core.safeguards.safety_mix import RefusalMix
from core.safeguards.scale_update import UpdateScale
from core.safeguards.self_distill import OwnWords
from core.safeguards.system_prompt import with_system_prompt
from core.schemas import safeguards as schema
from core.schemas.progress import OnProgress
from core.schemas.results import SafeguardEffect
from core.schemas.security import SecuritySpec
from core.schemas.strategy import Strategy
from core.training.kept import LAST_WEIGHTS, EndWeights
from core.training.loop import Objective, next_token_loss

_IMPLEMENTATIONS: dict[type[schema.SafeguardOptions], type[Safeguard[Any]]] = {}
Implementation = TypeVar("Implementation", bound=Safeguard[Any])


def register(implementation: type[Implementation]) -> type[Implementation]:
    """Accept a safeguard in requests and apply it in runs; usable as a class decorator.

    Raises:
        ValueError: another safeguard has the name of its options already.
    """
    schema.register(implementation.options_class)
    _IMPLEMENTATIONS[implementation.options_class] = implementation
    return implementation


def unregister(implementation: type[Safeguard[Any]]) -> None:
    """Stop accepting a safeguard. For tests, which must leave the process as they found it."""
    schema.unregister(implementation.options_class)
    del _IMPLEMENTATIONS[implementation.options_class]


for _implementation in (RefusalMix, ConstrainedLoss, AlignmentProjection, PromptAfterTraining):
    register(_implementation)
for _implementation in (KlLoss, OwnWords, AnswerInPrompt, WeightAverage, LastSafeWeights, UpdateScale):
    register(_implementation)


def safeguards_of(run: Strategy) -> tuple[Safeguard[Any], ...]:
    """The safeguards of a run, in the order in which they take effect."""
    return tuple(_IMPLEMENTATIONS[type(options)](options) for options in run.safeguards)


def check(run: Strategy, context: SafeguardContext) -> None:
    """Reject a run whose safeguards cannot work with the base model or the modules, before anything is computed.

    Raises:
        SecureTuneError: any error of a safeguard's `check`.
    """
    for safeguard in safeguards_of(run):
        safeguard.check(context)


def inputs(run: Strategy, context: SafeguardContext) -> JsonValue:
    """Everything that the trained weights of a run depend on because of its safeguards."""
    return {
        safeguard.options.name: [safeguard.options.model_dump(mode="json"), safeguard.inputs(context)]
        for safeguard in safeguards_of(run)
    }


def rewrite_rows(
    run: Strategy, context: SafeguardContext, rows: Sequence[Conversation], on_progress: OnProgress
) -> tuple[Sequence[Conversation], tuple[SafeguardEffect, ...]]:
    """The rows with the answers that the run's safeguards write anew, and the effects; the same rows if none does."""
    effects: list[SafeguardEffect] = []
    for safeguard in safeguards_of(run):
        if (rewritten := safeguard.rewrite_rows(context, rows, on_progress)) is not None:
            rows = rewritten.rows
            effects.append(rewritten.effect)
    return rows, tuple(effects)


def training_rows(run: Strategy, rows: Sequence[Conversation]) -> Sequence[Conversation]:
    """The rows as they are trained on; the same sequence if no safeguard changes a row."""
    changed = [reduce(lambda row, safeguard: safeguard.training_row(row), safeguards_of(run), row) for row in rows]
    return rows if all(new is old for new, old in zip(changed, rows, strict=True)) else changed


def served_rows(run: Strategy, rows: Sequence[Conversation]) -> Sequence[Conversation]:
    """The rows as the served model receives them; the same sequence if no system prompt is required."""
    prompt = run.safeguards.serving_system_prompt
    return rows if prompt is None else [with_system_prompt(row, prompt) for row in rows]


def security_of(run: Strategy, spec: SecuritySpec) -> SecuritySpec:
    """How the run is attacked: with the system prompt that it must be served with, if one is required."""
    prompt = run.safeguards.serving_system_prompt
    return spec if prompt is None else spec.model_copy(update={"system_prompt": prompt})


def extra_rows(
    run: Strategy, context: SafeguardContext, rows: Sequence[Encoded], on_progress: OnProgress
) -> tuple[ExtraRows, ...]:
    """The rows that each safeguard adds to the training rows.

    Raises:
        TrainingFailed: a safeguard has no rows to add.
    """
    added = [safeguard.extra_rows(context, rows, on_progress) for safeguard in safeguards_of(run)]
    return tuple(extra for extra in added if extra is not None)


def objective(
    run: Strategy, context: SafeguardContext, on_progress: OnProgress
) -> tuple[Objective, tuple[SafeguardEffect, ...]]:
    """The loss that the run is trained with, and what the safeguards that change it report.

    Raises:
        TrainingFailed: a safeguard has no rows for its loss.
    """
    loss, effects = next_token_loss, list[SafeguardEffect]()
    for safeguard in safeguards_of(run):
        if (changed := safeguard.objective(loss, context, on_progress)) is not None:
            loss = changed.objective
            effects += [changed.effect] if changed.effect is not None else []
    return loss, tuple(effects)


def end_weights(run: Strategy) -> EndWeights:
    """Which weights the run ends with, before `after_training` changes them."""
    return reduce(lambda chosen, safeguard: safeguard.end_weights(chosen), safeguards_of(run), LAST_WEIGHTS)


def after_training(
    run: Strategy, context: TrainedContext, tuned: PeftModel | PreTrainedModel
) -> tuple[SafeguardEffect, ...]:
    """Apply what changes the trained weights, and return the effects."""
    effects = [safeguard.after_training(context, tuned) for safeguard in safeguards_of(run)]
    return tuple(effect for effect in effects if effect is not None)
