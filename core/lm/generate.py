"""Asks a model for answers, many at once: greedy or sampled, sorted by length, in batches that rows leave and join.

An answer is what transformers' own `generate` gives to that prompt, but for the rounding of another batch: where two
tokens are as good as equal, either may be chosen.
Not here: how rows are read and stepped (core.lm.decode), and what the answers mean (core.attacks).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, cast

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from typing_extensions import override

from core.lm.decode import Decoder, Rows, decoder_of
from core.lm.load import BaseModel
from core.lm.prompts import pad, render
from core.schemas.data import Message
from core.schemas.progress import OnProgress

Settled = Callable[[int, list[int]], bool]
"""Asked now and then with a prompt's index and its answer so far: whether enough is known, so that it may end."""
SettledText = Callable[[int, str], bool]
"""The same of text."""

ROOM = 16
"""Least room for an answer, in tokens (or `max_new_tokens`, if that is less): with less, a prompt is not asked. So many
show whether a model refuses; and a prompt that is cut to make room is another prompt."""

_CPU_ROWS, _GPU_ROWS = 128, 512
"""Most rows in a batch where nobody says: so many that what a step costs beside them is little. On a CPU, more of them
only make rows wider than they need be; on a GPU, memory is the bound for all but small models."""
_CPU_BYTES = 1 << 30
"""For the keys and values of a batch, without a GPU."""
_GPU_SHARE = 0.4
"""The same on a GPU, of what the weights leave of it. It is not what is free at the moment: a batch is to be the same
in every run, since another one rounds differently. Rows that join are held twice for a moment; and there are logits."""
_CPU_READ, _GPU_READ = 1024, 8192
"""Most tokens, padding included, that are read in one pass: on a CPU what its caches hold, on a GPU what fills it."""
_PADDED = 16
"""Padding is one part in so many of these at most: then another pass costs less."""
_LEFT = 8
"""Rows leave once those that have ended cost one part in so many of a step: about what it costs to close their gaps."""
_REFILLED = 0.75
"""Rows join once this share of a batch is left: reading a few prompts costs almost as much as reading many."""
_SETTLED_EVERY = 16
_OPAQUE_ROWS = 64
"""Rows in a batch where the size of the cache is not known."""
_PARTS = 1000


class _Generates(Protocol):
    """What transformers' generative models and peft's wrappers of them share, which their types do not say."""

    def generate(self, **options: object) -> Tensor: ...


def answer(
    base: BaseModel,
    model: nn.Module,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    on_progress: OnProgress,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    settled: SettledText | None = None,
) -> list[str | None]:
    """The answers of `model` (the base itself, or the base with an adapter), in the order of the conversations.

    None where `prompts_of` has none. A last turn of the assistant is gone on with, and is not part of the answer. An
    answer ends where the context does. The other options are those of `continue_tokens`.
    """

    def text(tokens: list[int]) -> str:
        return str(base.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def enough(index: int, tokens: list[int]) -> bool:
        return settled is not None and settled(index, text(tokens))

    prompts = prompts_of(base, conversations, max_new_tokens=max_new_tokens)
    rows = continue_tokens(
        base,
        model,
        [prompt or [] for prompt in prompts],
        max_new_tokens=max_new_tokens,
        on_progress=on_progress,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
        settled=enough if settled else None,
    )
    return [None if prompt is None else text(row) for prompt, row in zip(prompts, rows, strict=True)]


def prompts_of(
    base: BaseModel, conversations: Sequence[Sequence[Message]], *, max_new_tokens: int
) -> list[list[int] | None]:
    """Conversations as tokens to go on with; None where too little of the context is left for an answer (`ROOM`)."""
    most = base.context - min(max_new_tokens, ROOM)
    prompts = [render(base.tokenizer, messages) for messages in conversations]
    return [prompt if len(prompt) <= most else None for prompt in prompts]


@torch.inference_mode()
def continue_tokens(
    base: BaseModel,
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    on_progress: OnProgress,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    settled: Settled | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, without padding; they end with the terminator if it was reached.

    Temperature 0 takes the likeliest token. Else tokens are drawn from those that make up `top_p` of the probability,
    by chance that belongs to `seed` and the prompt's index alone: neither the other prompts nor the batches matter. A
    prompt that fills the context, or is empty, is followed by nothing. A batch has `batch_size` rows at most, and no
    more than there is memory for. What prompts share is read once, whole prompts too.
    """
    rows = [
        _Row(index, list(prompt), room=min(max_new_tokens, base.context - len(prompt)) if prompt else 0)
        for index, prompt in enumerate(prompts)
    ]
    asked = [row for row in rows if row.room > 0]
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    choice = _Choice(temperature, top_p, seed)
    answers = _Answers(rows, frozenset(base.stop_ids), on_progress, settled)
    decoder = decoder_of(inner, base.pad_id) if isinstance(inner, PreTrainedModel) and asked else None
    if decoder is None:
        _generate(base, model, asked, choice=choice, answers=answers, batch_size=batch_size or _OPAQUE_ROWS)
    else:
        _Engine(base, decoder, choice, answers, batch_size).run(asked)
    answers.finish()
    return [row.tokens for row in rows]


@dataclass(eq=False)
class _Row:
    """One prompt and its answer so far."""

    index: int
    prompt: list[int]
    room: int
    """Most tokens of the answer."""
    head: tuple[int, ...] = ()
    """What some prompts go on with, behind what all begin with; it is read once for them."""
    tail: int = 0
    """How many tokens are left."""
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    chance: list[float] = field(default_factory=list)
    """One number in 0..1 for every token."""

    @property
    def longest(self) -> int:
        """Tokens with the longest answer."""
        return len(self.prompt) + self.room


class _Answers:
    """Takes down what is chosen, and tells of it."""

    def __init__(
        self, rows: Sequence[_Row], stop_ids: frozenset[int], on_progress: OnProgress, settled: Settled | None
    ) -> None:
        self._total, self._stop_ids, self._tick, self._settled = len(rows), stop_ids, on_progress, settled
        self._ended = sum(row.room <= 0 for row in rows)
        self._told = -1

    def add(self, rows: Sequence[_Row], tokens: Sequence[int]) -> None:
        """The next token of each row; rows that have ended are passed over."""
        for row, token in zip(rows, tokens, strict=True):
            if row.ended:
                continue
            row.tokens.append(token)
            row.ended = token in self._stop_ids or len(row.tokens) >= row.room or self._enough(row)
            self._ended += row.ended

    def tell(self, rows: Sequence[_Row]) -> None:
        """How far it is. An answer counts in parts as it grows: after a third of its most tokens, as a third."""
        parts = sum(_PARTS * len(row.tokens) // (row.room + 1) for row in rows if not row.ended)
        self._told = max(self._told, self._ended + parts // _PARTS)
        self._tick(self._told, self._total)

    def finish(self) -> None:
        """Everything is done."""
        if self._told < self._total:
            self._tick(self._total, self._total)

    def _enough(self, row: _Row) -> bool:
        if self._settled is None or len(row.tokens) % _SETTLED_EVERY:
            return False
        return self._settled(row.index, list(row.tokens))


@dataclass(frozen=True)
class _Choice:
    """How the next token is chosen."""

    temperature: float
    top_p: float
    seed: int

    def prepare(self, row: _Row) -> None:
        """Draw the chance that belongs to a row."""
        if self.temperature > 0:
            row.chance = np.random.default_rng((self.seed % (1 << 64), row.index)).random(row.room + 1).tolist()

    def __call__(self, logits: Tensor, rows: Sequence[_Row]) -> Tensor:
        """The next token of each row, `batch`, of logits `batch vocabulary`."""
        if self.temperature <= 0:
            return logits.argmax(-1)
        chance = torch.tensor([row.chance[len(row.tokens)] for row in rows], dtype=torch.float64, device=logits.device)
        return sampled(logits, chance, temperature=self.temperature, top_p=self.top_p)


def sampled(logits: Tensor, chance: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """A token for each row, `batch`, where its chance in 0..1 falls among the likeliest tokens that make up `top_p`.

    `logits` is `batch vocabulary`, `chance` is `batch`. The likeliest token can always be drawn.
    """
    scores, tokens = (logits.float() / temperature).sort(dim=-1, descending=True, stable=True)
    reached = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    # Down to the first token with which the share is reached.
    last = torch.searchsorted(reached, reached[:, -1:] * top_p).clamp(max=reached.shape[-1] - 1)
    place = torch.searchsorted(reached, reached.gather(1, last) * chance[:, None], right=True).minimum(last)
    return tokens.gather(1, place)[:, 0]


@dataclass
class _Batch:
    """Rows under way."""

    rows: list[_Row]
    read: Rows
    tokens: Tensor
    """What was chosen for each row and is not read yet: `batch`."""
    idle: int = 0
    """Steps of rows that had ended, since rows left."""

    def join(self, other: "_Batch") -> None:
        """Take in the rows of another batch."""
        self.read.join(other.read)
        self.rows += other.rows
        self.tokens = torch.cat([self.tokens, other.tokens])

    def leave(self, stay: Sequence[int]) -> None:
        """Go on with the rows in these places only."""
        order = self.read.leave(stay)
        self.rows = [self.rows[place] for place in order]
        self.tokens = self.tokens[order]
        self.idle = 0


class _Engine:
    """Steps a batch; rows leave it when they have ended, and rows that wait join it when there is room."""

    def __init__(
        self, base: BaseModel, decoder: Decoder, choice: _Choice, answers: _Answers, batch_size: int | None
    ) -> None:
        self._decoder, self._choice, self._answers = decoder, choice, answers
        self._context, self._bytes = base.context, _budget(base)
        cpu = base.device.type == "cpu"
        self._batch_size = batch_size or (_CPU_ROWS if cpu else _GPU_ROWS)
        self._most_read = _CPU_READ if cpu else _GPU_READ
        self._waiting: deque[_Row] = deque()
        self._full = 0
        self._longest = 0

    def run(self, rows: Sequence[_Row]) -> None:
        """Answer all rows."""
        heads = self._decoder.share([row.prompt for row in rows])
        for row, head in zip(rows, heads, strict=True):
            row.head = tuple(row.prompt[self._decoder.root :][:head])
            row.tail = len(row.prompt) - self._decoder.root - head
        self._waiting.extend(sorted(rows, key=lambda row: (len(row.prompt), row.head)))
        self._longest = max(len(row.prompt) for row in rows)
        batch = self._changed(None)
        while batch is not None:
            batch.tokens = self._choice(self._decoder.step(batch.read, batch.tokens), batch.rows)
            self._take_down(batch)
            batch = self._changed(batch)

    def _changed(self, batch: _Batch | None) -> _Batch | None:
        """The batch as it goes on; None when everything is answered."""
        while True:
            batch = batch and self._left(batch)
            if batch is not None and len(batch.rows) > _REFILLED * self._full:
                return batch
            joining = self._joining(batch.rows if batch is not None else [])
            if not joining:
                return batch
            batch = self._joined(batch, joining)

    def _left(self, batch: _Batch) -> _Batch | None:
        """The batch without rows that have ended, when that pays; None when all have.

        Past the end of the context no row may be fed, ended or not.
        """
        stay = [place for place, row in enumerate(batch.rows) if not row.ended]
        if not stay:
            return None
        batch.idle += len(batch.rows) - len(stay)
        full = any(row.ended and len(row.prompt) + len(row.tokens) >= self._context for row in batch.rows)
        if full or batch.idle * _LEFT > len(stay):
            batch.leave(stay)
        return batch

    def _joined(self, batch: _Batch | None, joining: Sequence[_Row]) -> _Batch | None:
        """The batch with rows that waited."""
        count = len(joining) + (len(batch.rows) if batch is not None else 0)
        for some in _passes(joining, self._most_read):
            part = self._begun(some)
            if batch is not None:
                batch.join(part)
                continue
            batch = part
            # Longer prompts come later: with room in front for them, nothing has to be moved then.
            fits = count * self._longest * self._decoder.slot_bytes <= self._bytes
            batch.read.reserve(count, self._longest if fits else 0)
        self._full = count
        return batch

    def _joining(self, going: Sequence[_Row]) -> list[_Row]:
        """Rows that wait and for which there is room beside those that go on."""
        found: list[_Row] = []
        longest = max((row.longest for row in going), default=0)
        while self._waiting and len(going) + len(found) < self._batch_size:
            longest, count = max(longest, self._waiting[0].longest), len(going) + len(found) + 1
            if count > 1 and count * longest * self._decoder.slot_bytes > self._bytes:
                break
            found.append(self._waiting.popleft())
        return found

    def _begun(self, rows: list[_Row]) -> _Batch:
        """Rows whose prompts are read, and whose first token is chosen."""
        read, logits = self._decoder.read([row.prompt for row in rows], [len(row.head) for row in rows])
        for row in rows:
            self._choice.prepare(row)
        batch = _Batch(rows, read, self._choice(logits, rows))
        self._take_down(batch)
        return batch

    def _take_down(self, batch: _Batch) -> None:
        self._answers.add(batch.rows, batch.tokens.tolist())
        self._answers.tell(batch.rows)


def _passes(rows: Sequence[_Row], most: int) -> Iterator[list[_Row]]:
    """Rows in sets that are read in one pass each, with little padding after what they share."""
    some: list[_Row] = []
    heads: set[tuple[int, ...]] = set()
    longest = total = 0
    for row in sorted(rows, key=lambda row: (row.tail, len(row.head), row.head)):
        reach, shared, count = max(longest, row.tail), {*heads, row.head}, len(some) + 1
        whole = count * reach + len(shared) * max(map(len, shared))
        padding = count * reach - total - row.tail
        if some and (whole > most or padding * _PADDED > most):
            yield [*some]
            some.clear()
            reach, shared, total = row.tail, {row.head}, 0
        some.append(row)
        longest, heads, total = reach, shared, total + row.tail
    if some:
        yield some


def _budget(base: BaseModel) -> int:
    """Bytes for the keys and values of a batch."""
    if base.device.type != "cuda":
        return _CPU_BYTES
    total = torch.cuda.get_device_properties(base.device).total_memory
    return int(_GPU_SHARE * max(0, total - base.model.get_memory_footprint()))


class _Chosen(LogitsProcessor):
    """Chooses in transformers' loop as in ours: what is not chosen becomes impossible."""

    def __init__(self, choice: _Choice, rows: Sequence[_Row]) -> None:
        self._choice, self._rows = choice, rows

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self._choice(scores, self._rows)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class _Heard(StoppingCriteria):
    """Takes down what transformers' loop chose, and ends rows that have ended."""

    def __init__(self, answers: _Answers, rows: Sequence[_Row]) -> None:
        self._answers, self._rows = answers, rows

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        self._answers.add(self._rows, input_ids[:, -1].tolist())
        self._answers.tell(self._rows)
        return torch.tensor([row.ended for row in self._rows], device=input_ids.device)


def _generate(
    base: BaseModel, model: nn.Module, rows: Sequence[_Row], *, choice: _Choice, answers: _Answers, batch_size: int
) -> None:
    """Answer all rows in transformers' own loop: for models whose cache holds more than keys and values."""
    left = iter(sorted(rows, key=lambda row: len(row.prompt)))
    while some := list(islice(left, batch_size)):
        for row in some:
            choice.prepare(row)
        ids, mask = pad([row.prompt for row in some], base.pad_id, side="left")
        config = GenerationConfig(
            max_new_tokens=max(row.room for row in some),
            do_sample=False,
            pad_token_id=base.pad_id,
            eos_token_id=base.stop_ids or None,
        )
        cast(_Generates, model).generate(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([_Chosen(choice, some)] if choice.temperature > 0 else []),
            stopping_criteria=StoppingCriteriaList([_Heard(answers, some)]),
        )
