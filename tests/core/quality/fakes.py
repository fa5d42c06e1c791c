"""Stand-ins for the tests of task performance: a constant function, and a model with constant predictions."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from core.lm.load import BaseModel

T = TypeVar("T")


def always(value: T) -> Callable[..., T]:
    """A function that always returns `value`."""

    def same(*_args: object, **_options: object) -> T:
        return value

    return same


@contextmanager
def saying(base: BaseModel, tokens: Sequence[int]) -> Generator[None]:
    """Make these tokens the most likely ones at every position of the base model."""
    head = base.model.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    favoured = torch.zeros(head.out_features)
    favoured[list(tokens)] = 1e3

    def swayed(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + favoured

    handle = head.register_forward_hook(swayed)
    try:
        yield
    finally:
        handle.remove()
