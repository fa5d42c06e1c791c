"""Reads prompts and continues them by one token per step, for rows that join and leave between steps.

Covers: prefixes that prompts share are computed once. Rows are padded on the left and have no gaps, so a step computes
what transformers' own `generate` computes for the same batch.
Everything here runs in inference mode.
Not here: the cache (core.lm.cache), which token is chosen, when an answer ends, batch sizes (core.lm.engine).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import takewhile

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from core.lm.cache import CacheLayer, cache_layers, empty_cache
from core.lm.prompts import pad

_MIN_SAVING = 1 / 8
"""The common prefix of all prompts, and prompts that occur several times, are computed once if that saves at least this
share of all prompt tokens. Prefixes that only some prompts share are not: the extra passes cost what they save."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Names in model configurations of the largest distance that a layer attends to."""
_TRIAL_PROMPTS: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 8, 9))
"""Arbitrary tokens that a model is tested with."""
_TRIAL_PREFIX = 3


class Rows:
    """The rows that a model has read. They are padded on the left to as many slots as the longest row has tokens."""

    def __init__(self, cache: DynamicCache, lengths: Sequence[int], device: torch.device) -> None:
        self.cache, self.layers, self._device = cache, cache_layers(cache), device
        self._pad(lengths)

    @property
    def slots(self) -> int:
        """Slots of each row, padding included."""
        return self.cache.get_seq_length()

    def reserve(self, rows: int, slots: int) -> None:
        """Allocate space for `rows` rows of `slots` slots, and for some steps."""
        for layer in self.layers:
            layer.reserve(rows, slots)

    def join(self, others: "Rows") -> None:
        """Append other rows."""
        lengths = self._lengths + others._lengths
        for layer, other in zip(self.layers, others.layers, strict=True):
            layer.reserve(len(lengths), max(lengths), behind=0)
            layer.resize(max(lengths))
            layer.join(other.in_use)
        self._pad(lengths)

    def leave(self, stay: Sequence[int]) -> list[int]:
        """Keep only the rows `stay`. Returns the old index of each row: the last rows fill the gaps."""
        staying = set(stay)
        moved = [place for place in stay if place >= len(stay)]
        gaps = [place for place in range(len(stay)) if place not in staying]
        order = list(range(len(stay)))
        for gap, place in zip(gaps, moved, strict=True):
            order[gap] = place
        before = self._lengths
        lengths = [before[place] for place in order]
        sources, targets = (torch.tensor(each, dtype=torch.long, device=self._device) for each in (moved, gaps))
        for layer in self.layers:
            layer.resize(max(lengths))
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
        """Padding slots of each row, on the model's device: `batch`."""


@dataclass(frozen=True)
class _Prefix:
    """Rows in the cache that may have gaps."""

    cache: DynamicCache
    mask: Tensor
    """1 for tokens, 0 for padding: `batch slots`, in host memory."""


class Decoder:
    """A model whose rows can join and leave between steps."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        """Use `decoder_of`, which tests the model."""
        self._model, self._pad_id, self._window = model, pad_id, _window(model)
        names = signature(model.forward).parameters
        self._takes_positions = "position_ids" in names
        # The head of a large vocabulary costs as much as several layers: it is computed for the last position only.
        # With a number instead of an index, transformers takes a view, and torch copies bfloat16 heads for every row.
        last = torch.tensor([-1], device=model.device)
        self._last_only = {"logits_to_keep": last} if "logits_to_keep" in names else {}
        self._root: _Prefix | None = None
        self.root = 0
        """Number of tokens in the common prefix of all prompts, which is computed once."""
        self.slot_bytes = 0
        """Bytes of one slot of one row in the cache."""

    def works(self, *, shared: bool) -> bool:
        """Whether rows that are read and stepped give the logits of whole rows, tested on a few tokens.

        `shared` tests it with a shared prefix.
        """
        try:
            return self._passes_trial([_TRIAL_PREFIX if shared else 0] * len(_TRIAL_PROMPTS))
        except (RuntimeError, ValueError, TypeError, IndexError):  # errors of models that cannot be used like this
            return False

    def share(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Compute the common prefix of all prompts, if that saves enough.

        Returns for each prompt the number of tokens after that prefix that should be computed once for all equal
        prompts.
        """
        total = sum(map(len, prompts))
        first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
        common = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        root = min(len(list(common)), min(map(len, prompts)) - 1)
        root = root if root * (len(prompts) - 1) >= _MIN_SAVING * total else 0
        rest = [tuple(prompt[root:]) for prompt in prompts]
        count = Counter(rest)
        # The last token of a prompt is never shared: the logits after it are needed for every row.
        heads = [len(prompt) - 1 if count[prompt] > 1 else 0 for prompt in rest]
        if sum((times - 1) * (len(prompt) - 1) for prompt, times in count.items()) < _MIN_SAVING * total:
            heads = [0] * len(prompts)
        # A shared prefix and the rest of a prompt are separated by padding, which a window would count.
        reach = root + max(heads) + max(len(prompt) - head for prompt, head in zip(rest, heads, strict=True))
        near = self._window is None or reach <= self._window
        if not ((root or any(heads)) and near and self.works(shared=True)):
            return [0] * len(prompts)
        if root:
            self._root, _ = self._continue(None, [0], [prompts[0][:root]])
            self.root = root
        return heads

    def read(self, prompts: Sequence[Sequence[int]], heads: Sequence[int]) -> tuple[Rows, Tensor]:
        """Read prompts. `heads` is the number of tokens after the common prefix to compute once for equal prompts.

        Returns the rows in order, and the logits after each: `batch vocabulary`.
        """
        before, index = self._root, [0] * len(prompts)
        rest = [prompt[self.root :] for prompt in prompts]
        if any(heads):
            own = [tuple(prompt[:head]) for prompt, head in zip(rest, heads, strict=True)]
            places = {head: place for place, head in enumerate(dict.fromkeys(own))}
            before, _ = self._continue(before, [0] * len(places), list(places))
            index = [places[head] for head in own]
        tails = [prompt[head:] for prompt, head in zip(rest, heads, strict=True)]
        read, logits = self._continue(before, index, tails)
        return self._without_gaps(read), logits

    def step(self, rows: Rows, tokens: Tensor) -> Tensor:
        """Append one token to each row, `batch`. Returns the logits after each: `batch vocabulary`."""
        slots = torch.arange(rows.slots + 1, device=tokens.device)
        mask = (slots >= rows.pads[:, None]).long()
        return self._forward(rows.cache, tokens[:, None], mask, rows.slots - rows.pads[:, None])

    def _passes_trial(self, heads: Sequence[int]) -> bool:
        ids, mask = pad(_TRIAL_PROMPTS, self._pad_id, side="right")
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        expected = torch.stack(
            [row[len(tokens) - 2 : len(tokens)] for row, tokens in zip(logits, _TRIAL_PROMPTS, strict=True)]
        )
        rows, first = self.read([tokens[:-1] for tokens in _TRIAL_PROMPTS], heads)
        second = self.step(rows, torch.tensor([tokens[-1] for tokens in _TRIAL_PROMPTS], device=ids.device))
        size = sum(each.nbytes for layer in rows.layers for each in layer.in_use)
        self.slot_bytes = size // (rows.slots * len(_TRIAL_PROMPTS))
        tolerance = 1e-3 if self._model.dtype == torch.float32 else 1e-1
        return bool((torch.stack([first, second], dim=1) - expected).norm() <= tolerance * expected.norm())

    def _continue(
        self, before: _Prefix | None, index: Sequence[int], tails: Sequence[Sequence[int]]
    ) -> tuple[_Prefix, Tensor]:
        """Read each tail after the row of `before` with its index. Several tails may continue one row.

        Returns the rows and the logits after each.
        """
        cache = empty_cache(self._model)
        if cache is None:
            raise TypeError(f"{type(self._model).__name__} has its own kind of cache")
        ids, mask = pad(tails, self._pad_id, side="left")
        if before is not None:
            rows = torch.tensor(index, device=self._model.device)
            for own, layer in zip(cache.layers, before.cache.layers, strict=True):
                if isinstance(own, CacheLayer) and isinstance(layer, CacheLayer) and layer.is_initialized:
                    own.set(*(each.index_select(0, rows) for each in layer.in_use))
                    own.reserve(len(index), 0, behind=ids.shape[1])
            mask = torch.cat([before.mask[list(index)], mask], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = self._forward(cache, *(each.to(self._model.device) for each in (ids, mask, positions)))
        return _Prefix(cache, mask), logits

    def _forward(self, cache: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        options = {"position_ids": positions} if self._takes_positions else {}
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options, **self._last_only
        )
        return output.logits[:, -1].float()

    def _without_gaps(self, read: _Prefix) -> Rows:
        """Rows whose tokens are in the last slots."""
        lengths, slots = read.mask.sum(1).tolist(), read.mask.shape[1]
        if max(lengths) < slots or bool((read.mask.diff(dim=1) < 0).any()):
            source = read.mask.argsort(dim=1, stable=True)[:, slots - max(lengths) :].to(self._model.device)
            for layer in cache_layers(read.cache):
                layer.pick(source)
        return Rows(read.cache, lengths, self._model.device)


def decoder_of(model: PreTrainedModel, pad_id: int) -> Decoder | None:
    """A decoder for the model; None if its cache contains more than keys and values, such as a recurrent state.

    The model is tested, not only inspected. Call it in eval mode.
    """
    if "past_key_values" not in signature(model.forward).parameters or empty_cache(model) is None:
        return None
    decoder = Decoder(model, pad_id)
    return decoder if decoder.works(shared=False) else None


def _window(model: PreTrainedModel) -> int | None:
    """The smallest window of the model's layers; 0 if the position of a token is its slot, so gaps are not allowed."""
    if "position_ids" not in signature(model.forward).parameters:
        return 0
    config = model.config.get_text_config()
    known = (getattr(config, name, None) for name in _WINDOWS)
    return min((size for size in known if isinstance(size, int) and size > 0), default=None)
