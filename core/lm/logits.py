"""Logits at chosen positions only.

A vocabulary is far larger than a model is wide, so the head and what is computed from its logits are a large part of a
forward and a backward pass, also at prompts and padding, where nobody reads them.
Not here: what is computed from logits (core.lm.loss and the callers), the last position alone (core.lm.decode).
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel


def logits_at(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at `positions`, which are (row, position): `tokens vocabulary` for positions of shape `tokens 2`."""
    with logits_only_at(model, positions):
        return cast("Tensor", model(input_ids=input_ids, attention_mask=attention_mask).logits)[0]


@contextmanager
def logits_only_at(model: nn.Module, positions: Tensor) -> Generator[None]:
    """Within it, the model's output has logits of these positions alone, `1 tokens vocabulary`.

    The head reads fewer hidden states, so whatever a model does with its logits afterwards (a scale, a cap) is done.
    Do not pass labels to the model: its own loss expects all logits.
    """

    def choose(_head: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0][positions[:, 0], positions[:, 1]][None]

    head = cast("nn.Module", cast("PreTrainedModel", model).get_output_embeddings())
    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
