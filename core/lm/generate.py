"""Asks a model for answers, many at once: greedy or sampled, sorted by length, in batches that rows leave and join.

An answer is what transformers' own `generate` gives to that prompt, but for the rounding of another batch: where two
tokens are as good as equal, either may be chosen.
Not here: how rows are read and stepped (core.lm.decode), and what the answers mean (core.security).
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

from core.lm.decode import Decoder, Rows, decoder_of, stacked
from core.lm.load import BaseModel
from core.lm.prompts import pad, render
from core.spec.data import Message

Tick = Callable[[int, int], None]
"""Called often with (answers done, answers in all); may raise to stop."""
Settled = Callable[[int, list[int]], bool]
"""Asked now and then with a prompt's index and its answer so far: whether enough is known, so that it may end."""
SettledText = Callable[[int, str], bool]
"""The same of text."""

ROOM = 16
"""Least room for an answer, in tokens (or `max_new_tokens`, if that is less): with less, a prompt is not asked. So many
show whether a model refuses; and a prompt that is cut to make room is another prompt."""
BATCH_ROWS = 512
"""Most rows in a batch. What bounds it is memory: this keeps what a step does for each row, beside the model, short."""

_SETTLED_EVERY = 16
_CPU_BYTES = 1 << 30
"""For the keys and values of a batch, without a GPU."""
_GPU_SHARE = 0.4
"""The same on a GPU, of what the weights leave of it. It is not what is free at the moment: a batch is to be the same
in every run, since another one rounds differently. The rest is for logits, and for what is copied or read."""
_CPU_READ, _GPU_READ = 1024, 8192
"""Most tokens, padding included, that are read in one pass: on a CPU what its caches hold, on a GPU what fills it."""
_LEFT, _JOINED = 4, 1
"""Rows leave once those that have ended cost a quarter of a step, and others take their places once they cost a whole
one: about what it costs to move the rows that go on, and to read the prompts of others."""
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
    tick: Tick,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = BATCH_ROWS,
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
        tick=tick,
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
    tick: Tick,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = BATCH_ROWS,
    settled: Settled | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, without padding; they end with the terminator if it was reached.

    Temperature 0 takes the likeliest token. Else tokens are drawn from those that make up `top_p` of the probability,
    by chance that belongs to `seed` and the prompt's index alone: neither the other prompts nor the batches matter. A
    prompt that fills the context, or is empty, is followed by nothing. `batch_size` bounds the rows in a batch, and so
    does the memory that they take. Prompts may be the same: they are read once.
    """
    rows = [
        _Row(index, list(prompt), room=min(max_new_tokens, base.context - len(prompt)) if prompt else 0)
        for index, prompt in enumerate(prompts)
    ]
    asked = sorted((row for row in rows if row.room > 0), key=lambda row: len(row.prompt))
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    choice = _Choice(temperature, top_p, seed)
    answers = _Answers(rows, frozenset(base.stop_ids), tick, settled)
    decoder = decoder_of(inner, base.pad_id) if isinstance(inner, PreTrainedModel) and asked else None
    if decoder is None:
        _generate(base, model, asked, choice=choice, answers=answers, batch_size=min(batch_size, _OPAQUE_ROWS))
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
    head: int = 0
    """How many tokens of the prompt are read together with other prompts that begin with the same."""
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

    def __init__(self, rows: Sequence[_Row], stop_ids: frozenset[int], tick: Tick, settled: Settled | None) -> None:
        self._total, self._stop_ids, self._tick, self._settled = len(rows), stop_ids, tick, settled
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
    """Steps of rows that had ended, since the batch changed."""

    def places(self, *, ended: bool) -> list[int]:
        """Of rows that have ended, or that go on."""
        return [place for place, row in enumerate(self.rows) if row.ended == ended]


class _Engine:
    """Steps a batch. Rows that end leave it, and rows that wait take their places, when it pays."""

    def __init__(self, base: BaseModel, decoder: Decoder, choice: _Choice, answers: _Answers, batch_size: int) -> None:
        self._decoder, self._choice, self._answers = decoder, choice, answers
        self._batch_size, self._bytes, self._context = batch_size, _budget(base), base.context
        self._most_read = _CPU_READ if base.device.type == "cpu" else _GPU_READ
        self._waiting: deque[_Row] = deque()

    def run(self, rows: Sequence[_Row]) -> None:
        """Answer all rows, sorted by length."""
        for row, head in zip(rows, self._decoder.shared([row.prompt for row in rows]), strict=True):
            row.head = head
        self._waiting.extend(rows)
        while self._waiting:
            batch = self._started()
            while going := len(batch.places(ended=False)):
                if self._pays(batch, going):
                    self._change(batch)
                batch.tokens = self._choice(self._decoder.step(batch.read, batch.tokens), batch.rows)
                self._take_down(batch)

    def _started(self) -> _Batch:
        """Rows that waited, as many as there is room for."""
        parts = [self._begun(some) for some in _passes(self._joining([], self._batch_size), self._most_read)]
        rows = [row for part in parts for row in part.rows]
        return _Batch(rows, stacked([part.read for part in parts]), torch.cat([part.tokens for part in parts]))

    def _pays(self, batch: _Batch, going: int) -> bool:
        """Whether the batch is to change: some time after rows have ended.

        Past the end of the context no row may be fed, ended or not.
        """
        ended = [row for row in batch.rows if row.ended]
        batch.idle += len(ended)
        full = any(len(row.prompt) + len(row.tokens) >= self._context for row in ended)
        return full or batch.idle * (_JOINED if self._waiting else _LEFT) > going

    def _change(self, batch: _Batch) -> None:
        """Rows that wait take the places of rows that have ended; places that are left over are closed."""
        joining = self._joining([row for row in batch.rows if not row.ended], len(batch.rows))
        for some in _passes(joining, self._most_read):
            part = self._begun(some)
            chosen = part.places(ended=False)
            places = batch.places(ended=True)[: len(chosen)]
            if not chosen:
                continue
            batch.read.put(places, part.read, chosen)
            batch.tokens[places] = part.tokens[chosen]
            for place, other in zip(places, chosen, strict=True):
                batch.rows[place] = part.rows[other]
        going = batch.places(ended=False)
        if len(going) < len(batch.rows):
            batch.read.keep(going)
            batch.tokens = batch.tokens[going]
            batch.rows = [batch.rows[place] for place in going]
        batch.idle = 0

    def _joining(self, going: Sequence[_Row], most: int) -> list[_Row]:
        """Rows that wait and for which there is room beside those that go on: `most` rows together."""
        found: list[_Row] = []
        longest = max((row.longest for row in going), default=0)
        while self._waiting and len(going) + len(found) < most:
            longest, count = max(longest, self._waiting[0].longest), len(going) + len(found) + 1
            if count > 1 and count * longest * self._decoder.slot_bytes > self._bytes:
                break
            found.append(self._waiting.popleft())
        return found

    def _begun(self, rows: list[_Row]) -> _Batch:
        """Rows whose prompts are read, and whose first token is chosen."""
        read, logits = self._decoder.read([row.prompt for row in rows], [row.head for row in rows])
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
    for row in sorted(rows, key=lambda row: len(row.prompt) - row.head):
        head = tuple(row.prompt[: row.head])
        tail = len(row.prompt) - row.head
        shared = {*heads, head}
        if some and (len(some) + 1) * tail + len(shared) * max(map(len, shared)) > most:
            yield [*some]
            some.clear()
            shared = {head}
        some.append(row)
        heads = shared
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
    left = iter(rows)
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
