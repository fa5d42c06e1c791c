"""Reads a model's security proxies and its task loss: what is asked again and again while modules are moved.

Covers: feature drift, refusal drift and task loss of whatever state the model is in. Not here: moving modules
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
from core.data.template import IGNORED, Encoded
from core.errors import InvalidModel
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.packing import pack_by_length
from core.lm.prompts import pad, render
from core.robustness.classifier import SecurityDirection, fit, last_token_features
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts

_ANSWER_TOKENS = 4
"""Refusals are decided in their first words: over more tokens, what follows them drowns it."""
_BATCH = 32
_TOKENS = 4096
"""Gradients keep what every layer computed: on a model of 8 billion parameters that is most of the memory."""
_PADDING = 0.125
"""A batch ends where more of it would be padding."""


@dataclass(frozen=True)
class Reading:
    """What one state of the model measures. Losses and negative log-likelihoods in nats per token.

    The task loss is NaN where only security was read.
    """

    feature_drift: float
    refusal_nll: float
    task_loss: float


@dataclass(frozen=True)
class Effect:
    """What a change of the model did. Positive drift is less safe, positive gain is better at the task."""

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


def effect(before: Reading, after: Reading) -> Effect:
    """From one state to another."""
    return Effect(
        feature_drift=after.feature_drift - before.feature_drift,
        refusal_drift=after.refusal_nll - before.refusal_nll,
        task_gain=before.task_loss - after.task_loss,
    )


@dataclass(frozen=True)
class Chunk:
    """A batch that is read: harmful prompts with the base's own first answer tokens, or rows of the job's data."""

    input_ids: Tensor
    """`batch seq`, padded on the right."""
    attention_mask: Tensor
    """`batch seq`."""
    counted: Tensor
    """Positions whose next token counts, as (row, position): `tokens 2`."""
    wanted: Tensor
    """That next token: `tokens`."""
    last_prompt: Tensor | None
    """Position of the last prompt token, where the security feature is read: `batch`; null for rows of data."""

    @property
    def per_row(self) -> Tensor:
        """How many tokens count in each row: `batch`."""
        return torch.bincount(self.counted[:, 0], minlength=len(self.input_ids))

    def losses(self, logits: Tensor) -> Tensor:
        """Mean negative log-likelihood of the counted tokens of each row that has some.

        Args:
            logits: of the counted positions, `tokens vocabulary`.
        """
        each = cross_entropy(logits.float(), self.wanted, reduction="none")
        counts = self.per_row
        total = torch.zeros(len(counts), device=each.device).index_add(0, self.counted[:, 0], each)
        return total[counts > 0] / counts[counts > 0]

    def at_counted(self, states: Tensor) -> Tensor:
        """`batch seq ...` to `tokens ...`."""
        return states[self.counted[:, 0], self.counted[:, 1]]

    def at_last_prompt(self, states: Tensor) -> Tensor:
        """`batch seq width` to `batch width`."""
        return states[torch.arange(len(states), device=states.device), self.last_prompt]


class Readings:
    """Everything a reading needs, prepared once on the unchanged base model."""

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
        """Fit the classifier and keep the base's first answer tokens (4 at most) to `count` harmful prompts.

        Raises:
            InvalidModel: code `no_answers`; the base model says nothing to any of them.
        """
        harmful = [_tokens(base, text) for text in prompts.harmful[:count]]
        benign = [_tokens(base, text) for text in prompts.benign[:count]]
        self.direction: SecurityDirection = fit(
            last_token_features(base, harmful, on_progress=on_progress),
            last_token_features(base, benign, on_progress=on_progress),
            seed=seed,
        )
        answers = continue_tokens(base, base.model, harmful, max_new_tokens=_ANSWER_TOKENS, on_progress=on_progress)
        if not any(answers):
            raise InvalidModel(
                "The base model gives an empty answer to every harmful prompt, so there are no refusals to watch.",
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

    def of_security(self) -> Self:
        """The same without rows of the job's data: for sets whose drift alone is asked for."""
        found = copy(self)
        found.task = []
        return found

    @torch.inference_mode()
    def read(self, model: nn.Module) -> Reading:
        """Measure the model as it is now."""
        found = [self.pass_over(model, chunk) for chunk in (*self.harmful, *self.task)]
        count = len(self.harmful)
        features = [feature.float().cpu() for feature, _ in found if feature is not None]
        losses = [losses for _, losses in found]
        return Reading(
            feature_drift=self.direction.drift(torch.cat(features)),
            refusal_nll=float(torch.cat(losses[:count]).mean()),
            task_loss=float(torch.cat(losses[count:]).mean()) if self.task else nan,
        )

    @torch.inference_mode()
    def refusal_nll(self, model: nn.Module) -> float:
        """The refusal half of a reading alone."""
        return float(torch.cat([self.pass_over(model, chunk)[1] for chunk in self.harmful]).mean())

    def pass_over(self, model: nn.Module, chunk: Chunk) -> tuple[Tensor | None, Tensor]:
        """Features of the chunk's prompts (`batch width`, null for rows of data) and losses (`batch`)."""
        reads_features = chunk.last_prompt is not None
        output = model(
            input_ids=chunk.input_ids, attention_mask=chunk.attention_mask, output_hidden_states=reads_features
        )
        feature = chunk.at_last_prompt(output.hidden_states[self.direction.quality.layer]) if reads_features else None
        return feature, chunk.losses(chunk.at_counted(output.logits))


def _pack(lengths: Sequence[int]) -> Iterator[list[int]]:
    return pack_by_length(lengths, max_rows=_BATCH, max_tokens=_TOKENS, max_padding=_PADDING)


def _tokens(base: BaseModel, text: str) -> list[int]:
    return render(base.tokenizer, (Message(role="user", content=text),))


def _of_prompts(base: BaseModel, pairs: Sequence[tuple[list[int], list[int]]]) -> Chunk:
    # What follows the last token counts for nothing, so the model need not see it.
    ids, mask = pad([prompt + answer[:-1] for prompt, answer in pairs], base.pad_id, side="right")
    counted = [
        (row, len(prompt) + place - 1) for row, (prompt, answer) in enumerate(pairs) for place in range(len(answer))
    ]
    return Chunk(
        input_ids=ids.to(base.device),
        attention_mask=mask.to(base.device),
        counted=torch.tensor(counted, dtype=torch.long, device=base.device).reshape(-1, 2),
        wanted=torch.tensor([token for _, answer in pairs for token in answer], dtype=torch.long, device=base.device),
        last_prompt=torch.tensor([len(prompt) - 1 for prompt, _ in pairs], device=base.device),
    )


def _of_rows(base: BaseModel, rows: Sequence[Encoded]) -> Chunk:
    batch = collate(rows, base.pad_id).to(base.device)
    shifted = batch.labels[:, 1:]
    counted = (shifted != IGNORED).nonzero()
    wanted = shifted[counted[:, 0], counted[:, 1]]
    return Chunk(batch.input_ids[:, :-1], batch.attention_mask[:, :-1], counted, wanted, last_prompt=None)
