"""Measures a model's security proxies and its task loss on the probe prompts.

Covers: feature drift, refusal drift and task loss of the model in its current state. Not here: perturbing modules
(core.robustness.perturb), attribution by gradients (core.robustness.gradient).
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from math import nan
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from core.data.batches import collate
from core.data.encoded import IGNORED, Encoded
from core.errors import InvalidModel
from core.lm.answer_start import find_answer_start
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.packing import pack_by_length
from core.lm.prompts import pad, render
from core.robustness.classifier import fit_direction, last_token_features
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts

_ANSWER_TOKENS = 4
"""A refusal is decided by its first words; averaged over more tokens, the signal would be lost."""
_MAX_ROWS = 32
_MAX_TOKENS = 4096
"""Gradients keep the activations of every layer, which take most of the memory of a model of 8 billion parameters."""
_MAX_PADDING = 0.125
"""Share of a batch that may be padding."""


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


@dataclass(frozen=True)
class ProbeBatch:
    """A batch: harmful prompts with the first tokens of the base model's answers, or rows of the job's data."""

    input_ids: Tensor
    """`batch seq`, padded on the right."""
    attention_mask: Tensor
    """1 for tokens, 0 for padding: `batch seq`."""
    counted: Tensor
    """Positions whose next token counts in the loss, as (row, position): `tokens 2`."""
    wanted: Tensor
    """The next token of each of these positions: `tokens`."""
    last_prompt: Tensor | None
    """Position of the last prompt token, whose hidden state is the security feature: `batch`. None for rows of data."""

    @property
    def per_row(self) -> Tensor:
        """Number of counted tokens in each row: `batch`."""
        return torch.bincount(self.counted[:, 0], minlength=len(self.input_ids))

    def losses(self, logits: Tensor) -> Tensor:
        """Mean negative log-likelihood of each row's counted tokens, for rows that have any, from all logits."""
        counted = logits[self.counted[:, 0], self.counted[:, 1]]
        each = cross_entropy(counted.float(), self.wanted, reduction="none")
        counts = self.per_row
        total = torch.zeros(len(counts), device=each.device).index_add(0, self.counted[:, 0], each)
        return total[counts > 0] / counts[counts > 0]


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
        """Fit the classifier, and generate the first 4 tokens of the base model's answers to `count` harmful prompts.

        The thinking of a model that thinks is left empty, so that these tokens are those of a refusal.

        Raises:
            InvalidModel: code `no_answers`; the base model's answers to all of them are empty.
        """
        harmful_turns, benign_turns = (
            [(Message(role="user", content=text),) for text in texts[:count]]
            for texts in (prompts.harmful, prompts.benign)
        )
        start = find_answer_start(base, base.model, harmful_turns)
        harmful, benign = (
            [start.append(render(base.tokenizer, messages)) for messages in turns]
            for turns in (harmful_turns, benign_turns)
        )
        self.direction = fit_direction(
            last_token_features(base, harmful, on_progress=on_progress),
            last_token_features(base, benign, on_progress=on_progress),
            seed=seed,
        )
        answers = continue_tokens(base, base.model, harmful, max_new_tokens=_ANSWER_TOKENS, on_progress=on_progress)
        if not any(answers):
            raise InvalidModel(
                "The base model gives an empty answer to every harmful prompt, so there are no refusals to measure. "
                "Check its chat template and its end-of-sequence tokens.",
                code="no_answers",
                param="base_model",
            )
        pairs = list(zip(harmful, answers, strict=True))
        self.harmful = [
            _of_prompts(base, [pairs[index] for index in batch])
            for batch in _pack([len(prompt) + len(answer) for prompt, answer in pairs])
        ]
        self.task = [
            _of_rows(base, [task_rows[index] for index in batch])
            for batch in _pack([len(row.input_ids) for row in task_rows])
        ]

    def security_only(self) -> Self:
        """The same without rows of the job's data, for measurements of drift alone."""
        found = copy(self)
        found.task = []
        return found

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

    @torch.inference_mode()
    def refusal_nll(self, model: nn.Module) -> float:
        """Negative log-likelihood of the reference answers alone, nats per token."""
        return float(torch.cat([self.run_batch(model, batch)[1] for batch in self.harmful]).mean())

    def run_batch(self, model: nn.Module, batch: ProbeBatch) -> tuple[Tensor | None, Tensor]:
        """Features of the batch's prompts (`batch width`, None for rows of data) and losses (`batch`)."""
        reads_features = batch.last_prompt is not None
        output = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=reads_features
        )
        losses = batch.losses(output.logits)
        if not reads_features:
            return None, losses
        states = output.hidden_states[self.direction.quality.layer]
        return states[torch.arange(len(states), device=states.device), batch.last_prompt], losses


def _pack(lengths: Sequence[int]) -> Iterator[list[int]]:
    return pack_by_length(lengths, max_rows=_MAX_ROWS, max_tokens=_MAX_TOKENS, max_padding=_MAX_PADDING)


def _of_prompts(base: BaseModel, pairs: Sequence[tuple[list[int], list[int]]]) -> ProbeBatch:
    # The logits behind the last answer token are not needed, so the model does not read that token.
    ids, mask = pad([prompt + answer[:-1] for prompt, answer in pairs], base.pad_id, side="right")
    counted = [
        (row, len(prompt) + place - 1) for row, (prompt, answer) in enumerate(pairs) for place in range(len(answer))
    ]
    return ProbeBatch(
        input_ids=ids.to(base.device),
        attention_mask=mask.to(base.device),
        counted=torch.tensor(counted, dtype=torch.long, device=base.device).reshape(-1, 2),
        wanted=torch.tensor([token for _, answer in pairs for token in answer], dtype=torch.long, device=base.device),
        last_prompt=torch.tensor([len(prompt) - 1 for prompt, _ in pairs], device=base.device),
    )


def _of_rows(base: BaseModel, rows: Sequence[Encoded]) -> ProbeBatch:
    batch = collate(rows, base.pad_id).to(base.device)
    shifted = batch.labels[:, 1:]
    counted = (shifted != IGNORED).nonzero()
    wanted = shifted[counted[:, 0], counted[:, 1]]
    return ProbeBatch(batch.input_ids[:, :-1], batch.attention_mask[:, :-1], counted, wanted, last_prompt=None)
