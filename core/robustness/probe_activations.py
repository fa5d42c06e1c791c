"""Measures a model's security proxies and its task loss on the probe prompts.

Covers: feature drift, refusal drift and task loss of the model in its current state. Not here: perturbing modules
(core.robustness.perturb), attribution by gradients (core.robustness.gradient).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import nan
from typing import Self

import torch
from torch import Tensor, nn

from core.data.batches import collate
from core.data.encoded import Encoded
from core.lm.load import BaseModel
from core.lm.logits import logits_only_at
from core.lm.loss import find_labels
from core.robustness.classifier import fit_direction, last_token_features
from core.robustness.refusals import BaseRefusals, ProbeBatch, pack, pack_share, render_probes
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts

_MIN_PROMPTS, _MIN_ROWS = 16, 8
"""Prompts and rows in a share, at least."""


@dataclass(frozen=True)
class Measurement:
    """The figures of one state of the model. Losses and negative log-likelihoods are in nats per token.

    The task loss is NaN if only security was measured.
    """

    feature_drift: float
    refusal_nll: float
    task_loss: float


@dataclass(frozen=True)
class Effect:
    """The effect of a change of the model. Positive drift is less safe, positive gain is better at the task."""

    feature_drift: float
    refusal_drift: float
    task_gain: float

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.feature_drift + other.feature_drift,
            self.refusal_drift + other.refusal_drift,
            self.task_gain + other.task_gain,
        )

    def __sub__(self, other: Self) -> Self:
        return self + other * -1.0

    def __mul__(self, share: float) -> Self:
        return type(self)(self.feature_drift * share, self.refusal_drift * share, self.task_gain * share)


NO_EFFECT = Effect(0.0, 0.0, 0.0)


def effect(before: Measurement, after: Measurement) -> Effect:
    """The effect of going from one state to another."""
    return Effect(
        feature_drift=after.feature_drift - before.feature_drift,
        refusal_drift=after.refusal_nll - before.refusal_nll,
        task_gain=before.task_loss - after.task_loss,
    )


class ProbeActivations:
    """The prompts, rows and reference answers of a measurement, prepared once on the unchanged base model."""

    def __init__(
        self,
        base: BaseModel,
        prompts: ProbePrompts,
        task_rows: Sequence[Encoded],
        *,
        count: int,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        """Fit the classifier, and generate the first tokens of the base model's answers to `count` harmful prompts.

        Raises:
            InvalidModel: see `core.robustness.refusals.BaseRefusals`.
        """
        harmful, benign = render_probes(base, prompts.harmful[:count], prompts.benign[:count])
        self.direction = fit_direction(
            last_token_features(base, harmful, on_progress=on_progress),
            last_token_features(base, benign, on_progress=on_progress),
            seed=seed,
        )
        self.refusals = BaseRefusals(base, harmful, on_progress=on_progress)
        self._base, self._rows = base, task_rows
        self.task = [_of_rows(base, [task_rows[index] for index in batch]) for batch in pack(self._lengths)]

    def security_only(self) -> Self:
        """The same without rows of the job's data, for measurements of drift alone."""
        found = copy(self)
        found.task = []
        return found

    def share(self, number: int, of: int) -> Self:
        """The prompts and rows for one of several probes, each batch from one half of them.

        Each probe has its own share if they suffice, and some of the same otherwise. Maps of one probe from different
        prompts agree far better than maps of different probes, so all prompts for each probe would buy little
        (docs/decisions/0042).
        """
        shares = max(1, min(of, self.refusals.count // _MIN_PROMPTS, len(self._rows) // _MIN_ROWS))
        number %= shares
        found = copy(self)
        found.refusals = self.refusals.share(number, shares)
        found.task = [
            _of_rows(self._base, [self._rows[index] for index in batch], half)
            for half, batch in pack_share(self._lengths, number, shares)
        ]
        return found

    @property
    def _lengths(self) -> list[int]:
        return [len(row.input_ids) for row in self._rows]

    @torch.inference_mode()
    def measure(self, model: nn.Module) -> Measurement:
        """Measure the model in its current state."""
        found = [self.run_batch(model, batch) for batch in (*self.harmful, *self.task)]
        count = len(self.harmful)
        features = [feature.float().cpu() for feature, _ in found if feature is not None]
        losses = [losses for _, losses in found]
        return Measurement(
            feature_drift=self.direction.drift(torch.cat(features)),
            refusal_nll=float(torch.cat(losses[:count]).mean()),
            task_loss=float(torch.cat(losses[count:]).mean()) if self.task else nan,
        )

    @property
    def harmful(self) -> list[ProbeBatch]:
        """The harmful prompts."""
        return self.refusals.batches

    def refusal_nll(self, model: nn.Module) -> float:
        """Negative log-likelihood of the reference answers alone, nats per token."""
        return self.refusals.nll(model)

    def run_batch(self, model: nn.Module, batch: ProbeBatch) -> tuple[Tensor | None, Tensor]:
        """Features of the batch's prompts (`batch width`, None for rows of data) and losses (`batch`)."""
        reads_features = batch.last_prompt is not None
        with logits_only_at(model, batch.counted):
            output = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=reads_features
            )
        losses = batch.losses(output.logits[0])
        if not reads_features:
            return None, losses
        states = output.hidden_states[self.direction.quality.layer]
        return states[torch.arange(len(states), device=states.device), batch.last_prompt], losses


def _of_rows(base: BaseModel, rows: Sequence[Encoded], half: int = 0) -> ProbeBatch:
    batch = collate(rows, base.pad_id).to(base.device)
    counted, wanted = find_labels(batch.labels)
    return ProbeBatch(
        batch.input_ids[:, :-1], batch.attention_mask[:, :-1], counted, wanted, last_prompt=None, half=half
    )
