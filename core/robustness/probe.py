"""Reads a model's security proxies and its task loss: what is asked again and again while modules are moved.

Covers: feature drift, refusal drift and task loss of whatever state the model is in. Not here: moving modules
(core.robustness.perturb).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.data.batches import Batch, collate
from core.data.template import Encoded
from core.lm.generate import Tick, continue_tokens
from core.lm.load import BaseModel
from core.lm.loss import batch_losses, row_losses
from core.lm.prompts import pad, render
from core.robustness.classifier import SecurityDirection, fit, last_token_features
from core.spec.data import Message
from core.spec.security import ProbePrompts

_ANSWER_TOKENS = 8
_BATCH = 32


@dataclass(frozen=True)
class Reading:
    """What one state of the model measures. Losses and negative log-likelihoods in nats per token."""

    feature_drift: float
    refusal_nll: float
    task_loss: float


@dataclass(frozen=True)
class _Chunk:
    """Harmful prompts, each followed by the base model's own first answer tokens."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    last_prompt: Tensor


class Probe:
    """Everything a reading needs, prepared once on the unchanged base model."""

    def __init__(
        self,
        base: BaseModel,
        prompts: ProbePrompts,
        task_rows: Sequence[Encoded],
        *,
        count: int,
        seed: int,
        tick: Tick,
    ) -> None:
        """Fit the classifier and keep the base's first answer tokens (8 at most) to `count` harmful prompts."""
        harmful = [_tokens(base, text) for text in prompts.harmful[:count]]
        benign = [_tokens(base, text) for text in prompts.benign[:count]]
        self.direction: SecurityDirection = fit(
            last_token_features(base, harmful, tick=tick), last_token_features(base, benign, tick=tick), seed=seed
        )
        answers = continue_tokens(base, base.model, harmful, max_new_tokens=_ANSWER_TOKENS, tick=tick)
        pairs = sorted(zip(harmful, answers, strict=True), key=lambda pair: len(pair[0]))
        self._chunks = [_chunk(base, pairs[start : start + _BATCH]) for start in range(0, len(pairs), _BATCH)]
        rows = sorted(task_rows, key=lambda row: len(row.input_ids))
        self._task: list[Batch] = [
            collate(rows[start : start + _BATCH], base.pad_id).to(base.device) for start in range(0, len(rows), _BATCH)
        ]

    @torch.inference_mode()
    def read(self, model: nn.Module) -> Reading:
        """Measure the model as it is now."""
        features: list[Tensor] = []
        refusal: list[float] = []
        for chunk in self._chunks:
            output = model(input_ids=chunk.input_ids, attention_mask=chunk.attention_mask, output_hidden_states=True)
            states = output.hidden_states[self.direction.quality.layer]
            features.append(states[torch.arange(len(states)), chunk.last_prompt].float().cpu())
            refusal += row_losses(output.logits, chunk.labels).tolist()
        task = [
            loss
            for batch in self._task
            for loss in batch_losses(model, batch.input_ids, batch.attention_mask, batch.labels).tolist()
        ]
        return Reading(
            feature_drift=self.direction.drift(torch.cat(features)),
            refusal_nll=float(np.mean(refusal)),
            task_loss=float(np.mean(task)),
        )


def _tokens(base: BaseModel, text: str) -> list[int]:
    return render(base.tokenizer, (Message(role="user", content=text),))


def _chunk(base: BaseModel, pairs: Sequence[tuple[list[int], list[int]]]) -> _Chunk:
    ids, mask = pad([prompt + answer for prompt, answer in pairs], base.pad_id, side="right")
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(pairs):
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    last = torch.tensor([len(prompt) - 1 for prompt, _ in pairs])
    return _Chunk(*(tensor.to(base.device) for tensor in (ids, mask, labels, last)))
