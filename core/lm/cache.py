"""The key and value cache of the generation loop: a transformers cache whose rows can be moved, joined and dropped.

Everything here runs in inference mode. Not here: which tokens are read (core.lm.decode), batches (core.lm.engine).
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer
from typing_extensions import override

_SPARE_SLOTS = 64
"""Slots that are allocated in advance, so that keys and values are copied once in 64 steps and not in each."""


class CacheLayer(DynamicLayer):
    """Keys and values of one layer, each `batch heads slots width`, as views of larger tensors: the buffers.

    A step writes one slot; rows that leave, join or are skipped at the front copy nothing else. It also replaces layers
    with a sliding window and keeps slots that have left the window: the model's mask hides them, and rows of any length
    can join.
    """

    _buffers: tuple[Tensor, Tensor]
    in_use: tuple[Tensor, Tensor]
    """The keys and values in use."""

    def __init__(self) -> None:
        super().__init__()
        self._first = 0
        self._clean = 0
        """Slots of the buffers before this one were never written. Masked slots must contain finite numbers, too."""

    @override
    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append slots; returns all slots in use."""
        if not self.is_initialized:
            self.set(key_states, value_states)
            return key_states, value_states
        rows, new = len(key_states), key_states.shape[-2]
        if self._end + new > self._buffers[0].shape[-2]:
            self.reserve(rows, 0, behind=new + _SPARE_SLOTS)
        end = self._end
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, end : end + new] = states
        self._use(rows, self._first, end + new)
        return self.in_use

    def set(self, keys: Tensor, values: Tensor) -> None:
        """Replace all keys and values."""
        self._buffers, self._clean = (keys, values), 0
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._use(len(keys), 0, keys.shape[-2])

    def reserve(self, rows: int, slots: int, *, behind: int | None = None) -> None:
        """Allocate space for `rows` rows of `slots` slots, and for `behind` slots after them."""
        behind = _SPARE_SLOTS if behind is None else behind
        current, (allocated_rows, _, capacity, _) = self.in_use, self._buffers[0].shape
        used = current[0].shape[-2]
        before = max(0, slots - used)
        if rows <= allocated_rows and before <= self._first and self._end + behind <= capacity:
            return
        if rows <= allocated_rows and not before and not self._clean and used + behind <= capacity:
            for buffer, states in zip(self._buffers, current, strict=True):
                buffer[: len(states), :, :used] = states.clone()
        else:
            rows = max(rows, len(current[0]))
            keys, values = (_grown(states, rows, before, before + used + behind) for states in current)
            self._buffers, self._clean = (keys, values), before
        self._use(len(current[0]), before, before + used)

    def resize(self, slots: int) -> None:
        """Use exactly the last `slots` slots; new slots at the front are padding."""
        rows = len(self.in_use[0])
        self.reserve(rows, slots, behind=0)
        first = self._end - slots
        if first < self._clean:
            for buffer in self._buffers:
                buffer[:, :, first : self._clean] = 0
            self._clean = first
        self._use(rows, first, self._end)

    def move(self, sources: Tensor, targets: Tensor, rows: int) -> None:
        """Copy the rows `sources` over the rows `targets`, and use only the first `rows` rows afterwards."""
        for states in self.in_use:
            states.index_copy_(0, targets, states.index_select(0, sources))
        self._use(rows, self._first, self._end)

    def join(self, others: tuple[Tensor, Tensor]) -> None:
        """Append rows whose last slots align with the last slots here. Call `reserve` first."""
        start, end = len(self.in_use[0]), self._end
        rows, first = start + len(others[0]), end - others[0].shape[-2]
        for buffer, states in zip(self._buffers, others, strict=True):
            buffer[start:rows, :, self._clean : first] = 0
            buffer[start:rows, :, first:end] = states
        self._use(rows, self._first, end)

    def pick(self, source: Tensor) -> None:
        """Keep these slots of each row, `batch slots`, in this order."""
        picked: list[Tensor] = []
        for buffer in self._buffers:
            batch, heads, slots, width = buffer.shape
            first = torch.arange(batch * heads, device=buffer.device).reshape(batch, heads, 1) * slots + self._first
            index = (first + source[:, None]).flatten()
            picked.append(buffer.reshape(-1, width).index_select(0, index).reshape(batch, heads, -1, width))
        self.set(picked[0], picked[1])

    @property
    def _end(self) -> int:
        return self._first + self.get_seq_length()

    def _use(self, rows: int, first: int, end: int) -> None:
        keys, values = (buffer[:rows, :, first:end] for buffer in self._buffers)
        self._first, self.in_use, self.keys, self.values = first, (keys, values), keys, values


def empty_cache(model: PreTrainedModel) -> DynamicCache | None:
    """A cache for this model with `CacheLayer` layers; None if transformers needs another kind of cache for it."""
    cache = DynamicCache(config=model.config)
    replaced = (DynamicLayer, DynamicSlidingWindowLayer)
    if not all(type(layer) in (*replaced, DummyLayer) for layer in cache.layers):
        return None
    cache.layers = [CacheLayer() if type(layer) in replaced else layer for layer in cache.layers]
    return cache


def cache_layers(cache: DynamicCache) -> list[CacheLayer]:
    """The layers that contain keys and values."""
    return [layer for layer in cache.layers if isinstance(layer, CacheLayer) and layer.is_initialized]


def _grown(states: Tensor, rows: int, before: int, slots: int) -> Tensor:
    """A buffer of `rows` rows and `slots` slots that contains `states` after `before` unused slots."""
    used, heads, width = states.shape[-2], states.shape[1], states.shape[3]
    buffer = states.new_empty((rows, heads, slots, width))
    buffer[: len(states), :, before : before + used] = states
    return buffer
