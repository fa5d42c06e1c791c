"""Rows of tokens that a model goes on with, a token a step: how they are read, step, leave and join.

Covers: prompts that begin alike are computed once up to where they part; keys and values are written into room kept for
them; rows leave and join between steps. Rows are padded on the left and have no gaps, so that a step computes what
transformers' own `generate` would compute for the same batch.
Everything here is called in inference mode.
Not here: which token is chosen, when an answer ends, and how many rows go at once (core.lm.generate).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer
from typing_extensions import override

from core.lm.prompts import pad

_ROOM = 64
"""Slots that are held in advance: keys and values are copied once in so many steps, not in each."""
_MIN_SAVING = 1 / 8
"""The common prefix of all prompts, and prompts that occur several times, are computed once if that saves at least this
share of all prompt tokens. Prefixes that only some prompts share are not: the extra passes cost what they save."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""What configurations call the farthest slot that a layer looks back to."""
_TRIED: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 8, 9))
"""Whatever tokens."""
_TRIED_HEAD = 3


class _Layer(DynamicLayer):
    """Keys and values of one layer, each `batch heads slots width`: a part of larger tensors, the room.

    A step writes one slot; rows that leave, join or are passed over in front move nothing else. It stands in for layers
    with a sliding window too, and keeps what has left the window: the model's mask hides it, and rows of any length can
    join.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None
        self._first = 0
        self._clean = 0
        """Slots of the room before this one were never written. What is masked must be a number, too."""

    @override
    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add slots; returns all that are in use."""
        if self._room is None:
            self.hold(key_states, value_states)
            return key_states, value_states
        rows, new = len(key_states), key_states.shape[-2]
        if self._end + new > self._rooms[0].shape[-2]:
            self.reserve(rows, 0, behind=new + _ROOM)
        end = self._end
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:rows, :, end : end + new] = states
        self._use(rows, self._first, end + new)
        return self.held()

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """From now on these."""
        self._room, self._clean = (keys, values), 0
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._use(len(keys), 0, keys.shape[-2])

    def held(self) -> tuple[Tensor, Tensor]:
        """What is in use."""
        if self.keys is None or self.values is None:
            raise ValueError("The model has not read anything yet.")
        return self.keys, self.values

    def reserve(self, rows: int, slots: int, *, behind: int) -> None:
        """Have room for so many rows of so many slots in all, and for slots behind them."""
        held, (whole, _, capacity, _) = self.held(), self._rooms[0].shape
        used = held[0].shape[-2]
        before = max(0, slots - used)
        if rows <= whole and before <= self._first and self._end + behind <= capacity:
            return
        if rows <= whole and not before and not self._clean and used + behind <= capacity:
            for room, states in zip(self._rooms, held, strict=True):
                room[: len(states), :, :used] = states.clone()
        else:
            rows = max(rows, len(held[0]))
            keys, values = (_roomy(states, rows, before, before + used + behind) for states in held)
            self._room, self._clean = (keys, values), before
        self._use(len(held[0]), before, before + used)

    def fit(self, slots: int) -> None:
        """Use so many of the last slots, with padding in front where there are fewer."""
        rows = len(self.held()[0])
        self.reserve(rows, slots, behind=0)
        first = self._end - slots
        if first < self._clean:
            for room in self._rooms:
                room[:, :, first : self._clean] = 0
            self._clean = first
        self._use(rows, first, self._end)

    def move(self, sources: Tensor, targets: Tensor, rows: int) -> None:
        """Put some rows in the place of others; from now on use so many of the first rows."""
        for states in self.held():
            states.index_copy_(0, targets, states.index_select(0, sources))
        self._use(rows, self._first, self._end)

    def join(self, others: tuple[Tensor, Tensor]) -> None:
        """Use other rows too, their last slots in the last slots; there must be room for them."""
        start, end = len(self.held()[0]), self._end
        rows, first = start + len(others[0]), end - others[0].shape[-2]
        for room, states in zip(self._rooms, others, strict=True):
            room[start:rows, :, self._clean : first] = 0
            room[start:rows, :, first:end] = states
        self._use(rows, self._first, end)

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

    def _use(self, rows: int, first: int, end: int) -> None:
        keys, values = self._rooms
        self._first, self.keys, self.values = first, keys[:rows, :, first:end], values[:rows, :, first:end]


class Rows:
    """What a model has read, row by row: padded on the left to as many slots as the longest row has tokens."""

    def __init__(self, cache: DynamicCache, lengths: Sequence[int], device: torch.device) -> None:
        self.cache, self._device = cache, device
        self._pad(lengths)

    @property
    def slots(self) -> int:
        """Slots of each row, padding included."""
        return self.cache.get_seq_length()

    def layers(self) -> list[_Layer]:
        """The layers that hold anything."""
        return list(_layers(self.cache))

    def reserve(self, rows: int, slots: int) -> None:
        """Have room for so many rows of so many slots in all, and for some steps."""
        for layer in self.layers():
            layer.reserve(rows, slots, behind=_ROOM)

    def join(self, others: "Rows") -> None:
        """Go on with other rows too, behind those that are here."""
        lengths = self._lengths + others._lengths
        for layer, other in zip(self.layers(), others.layers(), strict=True):
            layer.reserve(len(lengths), max(lengths), behind=0)
            layer.fit(max(lengths))
            layer.join(other.held())
        self._pad(lengths)

    def leave(self, stay: Sequence[int]) -> list[int]:
        """Go on with these rows only. Returns which row stands in each place now: the last ones fill the gaps."""
        staying = set(stay)
        moved = [place for place in stay if place >= len(stay)]
        gaps = [place for place in range(len(stay)) if place not in staying]
        order = list(range(len(stay)))
        for gap, place in zip(gaps, moved, strict=True):
            order[gap] = place
        before = self._lengths
        lengths = [before[place] for place in order]
        sources, targets = (torch.tensor(each, dtype=torch.long, device=self._device) for each in (moved, gaps))
        for layer in self.layers():
            layer.fit(max(lengths))
            layer.move(sources, targets, len(stay))
        self._pad(lengths)
        return order

    @property
    def _lengths(self) -> list[int]:
        """Tokens of each row."""
        slots = self.slots
        return [slots - pad for pad in self._pads]

    def _pad(self, lengths: Sequence[int]) -> None:
        slots = self.slots
        self._pads = [slots - length for length in lengths]
        self.pads = torch.tensor(self._pads, device=self._device)
        """Empty slots before each row's first token, beside the model: `batch`."""


@dataclass(frozen=True)
class _Read:
    """Rows under way that may have gaps."""

    cache: DynamicCache
    mask: Tensor
    """Where their tokens are: `batch slots`, in the host's memory."""


class Decoder:
    """A model whose rows can be moved about between its steps."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        """For a model that `decoder_of` looks at."""
        self._model, self._pad_id, self._window = model, pad_id, _window(model)
        names = signature(model.forward).parameters
        self._placed = "position_ids" in names
        # The head of a large vocabulary costs as much as several layers: it is asked for the last position only.
        self._short = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._root: _Read | None = None
        self.root = 0
        """How many tokens all prompts begin with; they are read once."""
        self.slot_bytes = 0
        """What one slot of one row takes."""

    def works(self, *, shared: bool) -> bool:
        """Whether rows that are read and stepped say what whole rows say, tried on a few tokens.

        `shared` tries it with a beginning that is read apart.
        """
        try:
            return self._tried([_TRIED_HEAD if shared else 0] * len(_TRIED))
        except (RuntimeError, ValueError, TypeError, IndexError):  # what models say to what they are not made for
            return False

    def share(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Read what all prompts begin with, if that is worth it.

        Returns how many tokens of each, behind that, are worth reading once for all prompts that go on with the same.
        """
        total = sum(map(len, prompts))
        first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
        root = min(_common(first, last), min(map(len, prompts)) - 1)
        root = root if root * (len(prompts) - 1) >= _MIN_SAVING * total else 0
        rest = [tuple(prompt[root:]) for prompt in prompts]
        count = Counter(rest)
        # The last token of a prompt is never shared: the logits behind it are needed for every row.
        heads = [len(prompt) - 1 if count[prompt] > 1 else 0 for prompt in rest]
        if sum((times - 1) * (len(prompt) - 1) for prompt, times in count.items()) < _MIN_SAVING * total:
            heads = [0] * len(prompts)
        # Between what is read apart and what follows lies padding, which a window would count.
        reach = root + max(heads) + max(len(prompt) - head for prompt, head in zip(rest, heads, strict=True))
        near = self._window is None or reach <= self._window
        if not ((root or any(heads)) and near and self.works(shared=True)):
            return [0] * len(prompts)
        if root:
            self._root, _ = self._further(None, [0], [prompts[0][:root]])
            self.root = root
        return heads

    def read(self, prompts: Sequence[Sequence[int]], heads: Sequence[int]) -> tuple[Rows, Tensor]:
        """Read prompts; behind the root, so many tokens of each only once for all that have the same.

        Returns their rows, in order, and the logits of what follows each: `batch vocabulary`.
        """
        before, index = self._root, [0] * len(prompts)
        rest = [prompt[self.root :] for prompt in prompts]
        if any(heads):
            own = [tuple(prompt[:head]) for prompt, head in zip(rest, heads, strict=True)]
            places = {head: place for place, head in enumerate(dict.fromkeys(own))}
            before, _ = self._further(before, [0] * len(places), list(places))
            index = [places[head] for head in own]
        tails = [prompt[head:] for prompt, head in zip(rest, heads, strict=True)]
        read, logits = self._further(before, index, tails)
        return self._closed(read), logits

    def step(self, rows: Rows, tokens: Tensor) -> Tensor:
        """One more token for each row, `batch`. Returns the logits of what follows each: `batch vocabulary`."""
        slots = torch.arange(rows.slots + 1, device=tokens.device)
        mask = (slots >= rows.pads[:, None]).long()
        return self._forward(rows.cache, tokens[:, None], mask, rows.slots - rows.pads[:, None])

    def _tried(self, heads: Sequence[int]) -> bool:
        ids, mask = pad(_TRIED, self._pad_id, side="right")
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        wanted = torch.stack([row[len(tokens) - 2 : len(tokens)] for row, tokens in zip(logits, _TRIED, strict=True)])
        rows, first = self.read([tokens[:-1] for tokens in _TRIED], heads)
        second = self.step(rows, torch.tensor([tokens[-1] for tokens in _TRIED], device=ids.device))
        held = sum(each.nbytes for layer in rows.layers() for each in layer.held())
        self.slot_bytes = held // (rows.slots * len(_TRIED))
        close = 1e-3 if self._model.dtype == torch.float32 else 1e-1
        return bool((torch.stack([first, second], dim=1) - wanted).norm() <= close * wanted.norm())

    def _further(
        self, before: _Read | None, index: Sequence[int], tails: Sequence[Sequence[int]]
    ) -> tuple[_Read, Tensor]:
        """Read on: each tail behind the row of its index, which others may go on from too. Returns logits as well."""
        cache = _empty_cache(self._model)
        if cache is None:
            raise TypeError(f"{type(self._model).__name__} has a cache of its own kind")
        ids, mask = pad(tails, self._pad_id, side="left")
        if before is not None:
            there = torch.tensor(index, device=self._model.device)
            for own, layer in zip(cache.layers, before.cache.layers, strict=True):
                if isinstance(own, _Layer) and isinstance(layer, _Layer) and layer.is_initialized:
                    own.hold(*(each.index_select(0, there) for each in layer.held()))
                    own.reserve(len(index), 0, behind=ids.shape[1])
            mask = torch.cat([before.mask[list(index)], mask], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = self._forward(cache, *(each.to(self._model.device) for each in (ids, mask, positions)))
        return _Read(cache, mask), logits

    def _forward(self, cache: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        placed = {"position_ids": positions} if self._placed else {}
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **placed, **self._short
        )
        return output.logits[:, -1].float()

    def _closed(self, read: _Read) -> Rows:
        """Rows without gaps: what they hold is moved to the last slots."""
        lengths, slots = read.mask.sum(1).tolist(), read.mask.shape[1]
        if max(lengths) < slots or bool((read.mask.diff(dim=1) < 0).any()):
            source = read.mask.argsort(dim=1, stable=True)[:, slots - max(lengths) :].to(self._model.device)
            for layer in _layers(read.cache):
                layer.pick(source)
        return Rows(read.cache, lengths, self._model.device)


def decoder_of(model: PreTrainedModel, pad_id: int) -> Decoder | None:
    """The model as a decoder; None where it keeps anything but keys and values (a recurrent state, say).

    Whether it can be one is tried, and not only looked up. Call it in eval mode.
    """
    if "past_key_values" not in signature(model.forward).parameters or _empty_cache(model) is None:
        return None
    decoder = Decoder(model, pad_id)
    return decoder if decoder.works(shared=False) else None


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


def _roomy(states: Tensor, rows: int, before: int, slots: int) -> Tensor:
    """The same within so many rows and slots, behind some that are not used."""
    used, heads, width = states.shape[-2], states.shape[1], states.shape[3]
    room = states.new_empty((rows, heads, slots, width))
    room[: len(states), :, before : before + used] = states
    return room
