"""Rows of tokens that a model goes on with, a token a step: how they are read, step, leave and join.

Covers: prompts that begin alike are computed once up to where they part; keys and values are written into room kept for
them; rows leave and join between steps. Rows are padded on the left and have no gaps, so that a step computes what
transformers' own `generate` would compute for the same batch.
Everything here is called in inference mode.
Not here: which token is chosen, when an answer ends, and how many rows go at once (core.lm.generate).
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer
from typing_extensions import override

from core.lm.prompts import pad

_ROOM = 16
"""Slots that are held in advance: keys and values are copied once in so many steps, not in each."""
_WORTH = 2
"""Beginnings are computed apart where that saves one token in so many: another pass over the model has its price."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""What configurations call the farthest slot that a layer looks back to."""


_TRIED: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 8, 9))
"""Whatever tokens."""
_TRIED_HEAD = 3
_Set = tuple[int, Sequence[int]]
"""How far prompts begin alike, and their places."""


class _Layer(DynamicLayer):
    """Keys and values of one layer, each `batch heads slots width`, in tensors with room behind the slots in use.

    A step writes one slot, and what no row needs any more in front is passed over: nothing else is copied. It stands in
    for layers with a sliding window too, and keeps what has left the window: the model's mask hides it, and rows of any
    length can join.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None
        self._first = 0

    @override
    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add slots; returns all that are in use."""
        if self._room is None:
            self.hold(key_states, value_states)
            return key_states, value_states
        self._reserve(key_states.shape[-2])
        start, end = self._end, self._end + key_states.shape[-2]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self._use(self._first, end)
        return self.held()

    @override
    def reset(self) -> None:
        """Hold nothing."""
        super().reset()
        self._room = None

    def hold(self, keys: Tensor, values: Tensor, *, slots: int | None = None) -> None:
        """From now on these; of which only the first slots are in use, if their number is given."""
        self._room = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._use(0, keys.shape[-2] if slots is None else slots)

    def held(self) -> tuple[Tensor, Tensor]:
        """The slots in use."""
        if self.keys is None or self.values is None:
            raise ValueError("The model has not read anything yet.")
        return self.keys, self.values

    def fit(self, slots: int) -> None:
        """Use so many of the last slots, with padding in front where there are fewer."""
        if slots <= self._end:
            self._use(self._end - slots, self._end)
        else:
            self._renew(slots - self.get_seq_length(), slots + _ROOM)
            self._use(0, slots)

    def keep(self, index: Tensor) -> None:
        """From now on these rows."""
        kept = [each.index_select(0, index) for each in self.held()]
        # Into the room that is held already: fresh memory costs more than another copy.
        keys, values = (room[: len(index)] for room in self._rooms)
        self._room = keys, values
        for room, states in zip(self._room, kept, strict=True):
            room[:, :, self._first : self._end] = states
        self._use(self._first, self._end)

    def put(self, index: Tensor, others: tuple[Tensor, Tensor]) -> None:
        """Other rows in the place of these, their last slots in the last slots."""
        for own, states in zip(self.held(), others, strict=True):
            own[:, :, own.shape[-2] - states.shape[-2] :].index_copy_(0, index, states)

    def pick(self, source: Tensor) -> None:
        """From now on these slots of each row, `batch slots`."""
        picked: list[Tensor] = []
        for room in self._rooms:
            batch, heads, slots, width = room.shape
            first = torch.arange(batch * heads, device=room.device).reshape(batch, heads, 1) * slots + self._first
            index = (first + source[:, None]).flatten()
            picked.append(room.reshape(-1, width).index_select(0, index).reshape(batch, heads, -1, width))
        self.hold(picked[0], picked[1])

    @property
    def _rooms(self) -> tuple[Tensor, Tensor]:
        if self._room is None:
            raise ValueError("The model has not read anything yet.")
        return self._room

    @property
    def _end(self) -> int:
        return self._first + self.get_seq_length()

    def _use(self, first: int, end: int) -> None:
        keys, values = self._rooms
        self._first, self.keys, self.values = first, keys[:, :, first:end], values[:, :, first:end]

    def _reserve(self, new: int) -> None:
        """Have room for new slots behind the last."""
        slots, capacity = self.get_seq_length(), self._rooms[0].shape[-2]
        if self._end + new <= capacity:
            return
        if slots + new + _ROOM > capacity:
            self._renew(0, slots + new + _ROOM)
        else:  # enough have been passed over in front
            for room, states in zip(self._rooms, self.held(), strict=True):
                room[:, :, :slots] = states.clone()
        self._use(0, slots)

    def _renew(self, before: int, slots: int) -> None:
        """Move to tensors of so many slots, behind padding."""
        keys, values = (_stack([states], before + states.shape[-2], slots) for states in self.held())
        self._room = keys, values


class Rows:
    """What a model has read, row by row: padded on the left to as many slots as the longest row has tokens."""

    def __init__(self, cache: DynamicCache, lengths: Sequence[int], device: torch.device) -> None:
        self.cache, self._device = cache, device
        self._pad(lengths)

    @property
    def slots(self) -> int:
        """Slots of each row, padding included."""
        return self.cache.get_seq_length()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [self.slots - pad for pad in self._pads]

    def layers(self) -> list[_Layer]:
        """The layers that hold anything."""
        return list(_layers(self.cache))

    def keep(self, chosen: Sequence[int]) -> None:
        """From now on these rows only."""
        lengths = [self.lengths[place] for place in chosen]
        index = torch.tensor(chosen, device=self._device)
        for layer in self.layers():
            layer.fit(max(lengths))
            layer.keep(index)
        self._pad(lengths)

    def put(self, places: Sequence[int], others: "Rows", chosen: Sequence[int]) -> None:
        """The chosen ones of other rows in these places; of what stood there nothing is left."""
        lengths = self.lengths
        for place, other in zip(places, chosen, strict=True):
            lengths[place] = others.lengths[other]
        slots = max(*lengths, others.slots)
        there, index = torch.tensor(places, device=self._device), torch.tensor(chosen, device=self._device)
        for layer, other in zip(self.layers(), others.layers(), strict=True):
            layer.fit(slots)
            keys, values = other.held()
            layer.put(there, (keys.index_select(0, index), values.index_select(0, index)))
        self._pad(lengths)

    def _pad(self, lengths: Sequence[int]) -> None:
        self._pads = [self.slots - length for length in lengths]
        self.pads = torch.tensor(self._pads, device=self._device)
        """Empty slots before each row's first token, beside the model: `batch`."""


class Decoder:
    """A model whose rows can be moved about between its steps."""

    def __init__(self, model: PreTrainedModel, pad_id: int, *, window: int | None) -> None:
        """`decoder_of` finds the window: the most slots among which tokens may lie with a gap; None is any number."""
        self._model, self._pad_id, self._window = model, pad_id, window
        names = signature(model.forward).parameters
        self._placed = "position_ids" in names
        # The head of a large vocabulary costs as much as several layers: it is asked for the last position only.
        self._short = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self.slot_bytes = 0
        """What one slot of one row takes."""

    def try_out(self) -> bool:
        """Whether rows that are read in parts and stepped say what whole passes say; tried on a few tokens."""
        whole = torch.cat([self._whole(row)[:, -2:] for row in _TRIED])
        rows, first = self.read([row[:-1] for row in _TRIED], self._begun(_TRIED, [_TRIED_HEAD] * len(_TRIED)))
        second = self.step(rows, torch.tensor([row[-1] for row in _TRIED], device=first.device))
        held = sum(each.nbytes for layer in rows.layers() for each in layer.held())
        self.slot_bytes = held // (rows.slots * len(_TRIED))
        close = 1e-3 if self._model.dtype == torch.float32 else 1e-1
        return bool((torch.stack([first, second], dim=1) - whole).norm() <= close * whole.norm())

    def shared(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """How many tokens of each prompt are worth computing once for all prompts that begin with them."""
        heads = self._begun(prompts, beginnings(prompts))
        distinct = {tuple(prompt[:head]) for prompt, head in zip(prompts, heads, strict=True)}
        saved = sum(heads) - sum(map(len, distinct))
        return heads if saved * _WORTH >= sum(map(len, prompts)) else [0] * len(prompts)

    def read(self, prompts: Sequence[Sequence[int]], heads: Sequence[int]) -> tuple[Rows, Tensor]:
        """Read prompts, the first `heads` tokens of each only once for all that have the same.

        Returns their rows, in order, and the logits of what follows each: `batch vocabulary`.
        """
        cache = _empty_cache(self._model)
        if cache is None:
            raise TypeError(f"{type(self._model).__name__} has a cache of its own kind")
        begun = {tuple(prompt[:head]): None for prompt, head in zip(prompts, heads, strict=True) if head}
        if not begun:
            logits = self._read(cache, prompts)
            return Rows(cache, [len(prompt) for prompt in prompts], self._model.device), logits
        places = {head: place for place, head in enumerate(begun)}
        width = max(map(len, begun))
        tails = [prompt[head:] for prompt, head in zip(prompts, heads, strict=True)]
        self._read(cache, list(begun))
        index = [places.get(tuple(prompt[:head]), 0) for prompt, head in zip(prompts, heads, strict=True)]
        there = torch.tensor(index, device=self._model.device)
        for layer in _layers(cache):
            keys, values = layer.held()
            layer.hold(keys.index_select(0, there), values.index_select(0, there))
        logits = self._read(cache, tails, before=_filled(heads, width))
        return self._closed(cache, heads, tails), logits

    def step(self, rows: Rows, tokens: Tensor) -> Tensor:
        """One more token for each row, `batch`. Returns the logits of what follows each: `batch vocabulary`."""
        slots = torch.arange(rows.slots + 1, device=tokens.device)
        mask = (slots >= rows.pads[:, None]).long()
        return self._forward(rows.cache, tokens[:, None], mask, rows.slots - rows.pads[:, None])

    def _begun(self, prompts: Sequence[Sequence[int]], heads: Sequence[int]) -> list[int]:
        """These heads, or none: padding lies between a head and what follows, and a window would count it."""
        reach = max(heads) + max(len(prompt) - head for prompt, head in zip(prompts, heads, strict=True))
        return list(heads) if self._window is None or reach <= self._window else [0] * len(prompts)

    def _whole(self, row: Sequence[int]) -> Tensor:
        """Logits of a row by itself, without a cache: `1 seq vocabulary`."""
        ids = torch.tensor([row], device=self._model.device)
        return self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()

    def _read(self, cache: DynamicCache, prompts: Sequence[Sequence[int]], before: Tensor | None = None) -> Tensor:
        """Read prompts after what the cache holds, of which `before` says where tokens are: `batch slots`."""
        ids, mask = pad(prompts, self._pad_id, side="left")
        mask = mask if before is None else torch.cat([before, mask], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        there = [each.to(self._model.device) for each in (ids, mask, positions)]
        return self._forward(cache, *there)

    def _forward(self, cache: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        placed = {"position_ids": positions} if self._placed else {}
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **placed, **self._short
        )
        return output.logits[:, -1].float()

    def _closed(self, cache: DynamicCache, heads: Sequence[int], tails: Sequence[Sequence[int]]) -> Rows:
        """Rows whose beginnings are moved up to what follows them."""
        lengths = torch.tensor([[head + len(tail), len(tail)] for head, tail in zip(heads, tails, strict=True)])
        whole, rest = lengths[:, :1], lengths[:, 1:]
        slots, longest, gap = cache.get_seq_length(), int(whole.max()), int(rest.max()) - rest
        wanted = torch.arange(slots - longest, slots)
        source = torch.where(wanted >= slots - rest, wanted, (wanted - gap).clamp(min=0)).to(self._model.device)
        for layer in _layers(cache):
            layer.pick(source)
        return Rows(cache, whole[:, 0].tolist(), self._model.device)


def decoder_of(model: PreTrainedModel, pad_id: int) -> Decoder | None:
    """The model as a decoder; None where it keeps anything but keys and values (a recurrent state, say).

    Whether it can be one is tried, with beginnings that are read apart and without, and not looked up. Call it in eval
    mode; an adapter may be on, and be changed afterwards.
    """
    if "past_key_values" not in signature(model.forward).parameters or _empty_cache(model) is None:
        return None
    for window in dict.fromkeys((_window(model), 0)):
        decoder = Decoder(model, pad_id, window=window)
        try:
            if decoder.try_out():
                return decoder
        except (RuntimeError, ValueError, TypeError, IndexError):  # what models say to what they are not made for
            continue
    return None


def stacked(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, one behind the other. The parts are used up: each layer's memory is free again at once."""
    first = parts[0]
    if len(parts) == 1:
        return first
    lengths = [length for rows in parts for length in rows.lengths]
    slots = max(lengths)
    for layers in zip(*(rows.layers() for rows in parts), strict=True):
        keys, values = zip(*(layer.held() for layer in layers), strict=True)
        for layer in layers:
            layer.reset()
        layers[0].hold(_stack(keys, slots, slots + _ROOM), _stack(values, slots, slots + _ROOM), slots=slots)
    return Rows(first.cache, lengths, first.pads.device)


def beginnings(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt, how many of its first tokens to compute together with all prompts that begin with the same.

    Prompts are parted into sets that begin alike, so that few tokens are left to compute. Every prompt keeps its last
    token for itself: what follows it is asked.
    """
    order = sorted(range(len(prompts)), key=lambda index: tuple(prompts[index]))
    inner = [_common(prompts[one], prompts[other]) for one, other in pairwise(order)]
    # A run of neighbours begins alike as far as its least common length; runs lie within runs, and the deepest close
    # first. Of each: its depth, where it starts, and the sets within it.
    runs: list[tuple[int, int, list[_Set]]] = [(0, 0, [])]
    for place, depth in enumerate([*inner, 0]):
        start, sets = place, list[_Set]()
        while runs[-1][0] > depth:
            deep, start, within = runs.pop()
            sets = _parted(range(start, place + 1), [*within, *sets], deep)
        if runs[-1][0] == depth:
            _, start, within = runs.pop()
            sets = [*within, *sets]
        runs.append((depth, start, sets))
    found = [0] * len(prompts)
    for depth, places in runs[0][2]:
        for place in places if len(places) > 1 else ():
            found[order[place]] = depth
    return found


def _parted(places: Sequence[int], sets: Sequence[_Set], depth: int) -> list[_Set]:
    """A run's members in sets: those within it that save more by themselves, or all of those; and one of the others."""
    better = [(own, members) for own, members in sets if (len(members) - 1) * own > len(members) * depth]
    parted: list[list[_Set]] = []
    for kept in (better, sets):
        apart = {place for _, members in kept for place in members}
        parted.append([*kept, (depth, [place for place in places if place not in apart])])
    return max(parted, key=lambda found: sum(max(len(members) - 1, 0) * own for own, members in found))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    most = min(len(one), len(other)) - 1
    return next((place for place in range(most) if one[place] != other[place]), max(most, 0))


def _empty_cache(model: PreTrainedModel) -> DynamicCache | None:
    """A cache for this model whose rows can be moved; None where transformers knows that it needs another kind."""
    cache = DynamicCache(config=model.config)
    movable = (DynamicLayer, DynamicSlidingWindowLayer)
    if not all(type(layer) in (*movable, DummyLayer) for layer in cache.layers):
        return None
    cache.layers = [_Layer() if type(layer) in movable else layer for layer in cache.layers]
    return cache


def _layers(cache: DynamicCache) -> Iterator[_Layer]:
    return (layer for layer in cache.layers if isinstance(layer, _Layer) and layer.is_initialized)


def _window(model: PreTrainedModel) -> int | None:
    """The farthest that any layer looks back; 0 where tokens are placed by their slot, so that no gap may lie there."""
    if "position_ids" not in signature(model.forward).parameters:
        return 0
    config = model.config.get_text_config()
    known = (getattr(config, name, None) for name in _WINDOWS)
    return min((size for size in known if isinstance(size, int) and size > 0), default=None)


def _filled(lengths: Sequence[int], width: int) -> Tensor:
    """Mask of rows that end at the last slot: `batch width`."""
    return (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()


def _stack(states: Sequence[Tensor], used: int, slots: int) -> Tensor:
    """Keys or values of several rows, one behind the other, in so many slots of which the first are used."""
    _, heads, _, width = states[0].shape
    whole = states[0].new_empty((sum(map(len, states)), heads, slots, width))
    for part, each in zip(whole.split(list(map(len, states))), states, strict=True):
        own = each.shape[-2]
        part[:, :, : used - own] = 0  # never seen, but what is masked must be a number
        part[:, :, used - own : used] = each
    return whole
