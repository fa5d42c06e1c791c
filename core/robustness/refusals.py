"""The first tokens of the base model's answers to harmful probe prompts, and how likely a model finds them.

Covers: batches that a model is measured on, and their losses. Not here: features and rows of the job's data
(core.robustness.probe_activations).
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from core.errors import InvalidModel
from core.lm.answer_start import find_answer_start
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.logits import logits_at
from core.lm.loss import row_means
from core.lm.packing import pack_by_length
from core.lm.prompts import pad, render
from core.schemas.data import Message
from core.schemas.progress import OnProgress

_ANSWER_TOKENS = 4
"""A refusal is decided by its first words; averaged over more tokens, the signal would be lost."""
_MAX_ROWS = 32
_MAX_TOKENS = 4096
"""Gradients keep the activations of every layer, which take most of the memory of a model of 8 billion parameters."""
_MAX_PADDING = 0.125
"""Share of a batch that may be padding."""


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
    half: int = 0
    """The half of a share of the prompts or rows that all of the batch belongs to: 0 or 1; 0 if there are no shares."""

    @property
    def per_row(self) -> Tensor:
        """Number of counted tokens in each row: `batch`."""
        return torch.bincount(self.counted[:, 0], minlength=len(self.input_ids))

    def losses(self, logits: Tensor) -> Tensor:
        """Mean negative log-likelihood of each row's counted tokens, for rows that have any.

        `logits` are those of the counted positions alone, `tokens vocabulary`.
        """
        each = cross_entropy(logits.float(), self.wanted, reduction="none")
        return row_means(each, self.counted, len(self.input_ids))[self.per_row > 0]


class BaseRefusals:
    """The base model's first answer tokens, generated once on the unchanged base model."""

    def __init__(self, base: BaseModel, prompts: Sequence[Sequence[int]], *, on_progress: OnProgress) -> None:
        """Generate the first 4 tokens of the answers to prompts of `render_probes`.

        Raises:
            InvalidModel: code `no_answers`; all answers are empty.
        """
        answers = continue_tokens(base, base.model, prompts, max_new_tokens=_ANSWER_TOKENS, on_progress=on_progress)
        if not any(answers):
            raise InvalidModel(
                "The base model gives an empty answer to every harmful prompt, so there are no refusals to measure. "
                "Check its chat template and its end-of-sequence tokens.",
                code="no_answers",
                param="base_model",
            )
        self._base, self._pairs = base, list(zip(prompts, answers, strict=True))
        self.batches = [_of_pairs(base, [self._pairs[index] for index in batch]) for batch in pack(self._lengths)]

    def share(self, number: int, shares: int) -> Self:
        """The same with one of several shares of the prompts, each batch from one half of it."""
        found = copy(self)
        found.batches = [
            _of_pairs(self._base, [self._pairs[index] for index in batch], half)
            for half, batch in pack_share(self._lengths, number, shares)
        ]
        return found

    @property
    def count(self) -> int:
        """Number of prompts."""
        return len(self._pairs)

    @property
    def _lengths(self) -> list[int]:
        return [len(prompt) + len(answer) for prompt, answer in self._pairs]

    @torch.inference_mode()
    def nll(self, model: nn.Module) -> float:
        """Negative log-likelihood of the base model's answers by a model, nats per token."""
        found = [
            batch.losses(logits_at(model, batch.input_ids, batch.attention_mask, batch.counted))
            for batch in self.batches
        ]
        return float(torch.cat(found).mean())


def render_probes(base: BaseModel, harmful: Sequence[str], *others: Sequence[str]) -> list[list[list[int]]]:
    """Each list of prompts as tokens, up to where the answer begins.

    The thinking of a model that thinks is left empty, so that the next tokens are those of a refusal. Raises what
    `core.lm.prompts.render` raises.
    """
    turns = [[(Message(role="user", content=text),) for text in texts] for texts in (harmful, *others)]
    start = find_answer_start(base, base.model, turns[0])
    return [[start.append(render(base.tokenizer, messages)) for messages in each] for each in turns]


def pack(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of rows of similar lengths, as indices."""
    return pack_by_length(lengths, max_rows=_MAX_ROWS, max_tokens=_MAX_TOKENS, max_padding=_MAX_PADDING)


def pack_share(lengths: Sequence[int], number: int, shares: int) -> Iterator[tuple[int, list[int]]]:
    """Batches of one of several shares of the rows: the half of the share that a batch belongs to, and indices.

    Halves are random, because lists of prompts often repeat a pattern. They are small, so they may have more padding.
    """
    order = np.random.default_rng(0).permutation(len(lengths)).tolist()
    for half in range(2):
        members = sorted(order[2 * number + half :: 2 * shares])
        own = [lengths[index] for index in members]
        for batch in pack_by_length(own, max_rows=_MAX_ROWS, max_tokens=_MAX_TOKENS, max_padding=2 * _MAX_PADDING):
            yield half, [members[index] for index in batch]


def _of_pairs(base: BaseModel, pairs: Sequence[tuple[Sequence[int], list[int]]], half: int = 0) -> ProbeBatch:
    # The logits behind the last answer token are not needed, so the model does not read that token.
    ids, mask = pad([[*prompt, *answer[:-1]] for prompt, answer in pairs], base.pad_id, side="right")
    counted = [
        (row, len(prompt) + place - 1) for row, (prompt, answer) in enumerate(pairs) for place in range(len(answer))
    ]
    return ProbeBatch(
        input_ids=ids.to(base.device),
        attention_mask=mask.to(base.device),
        counted=torch.tensor(counted, dtype=torch.long, device=base.device).reshape(-1, 2),
        wanted=torch.tensor([token for _, answer in pairs for token in answer], dtype=torch.long, device=base.device),
        last_prompt=torch.tensor([len(prompt) - 1 for prompt, _ in pairs], device=base.device),
        half=half,
    )
