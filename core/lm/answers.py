"""Answers in progress: one row per prompt, how the next token is chosen, when an answer ends, and progress.

Not here: reading and stepping rows (core.lm.decode), batches (core.lm.engine).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from core.schemas.progress import OnProgress

EarlyStop = Callable[[int, list[int]], bool]
"""Called about every 16 tokens with (index of the prompt, answer so far). Returns whether the answer ends now."""
_CHECK_EVERY = 16
"""Tokens between two calls of `EarlyStop`."""
_PARTS = 1000


@dataclass(eq=False)
class AnswerRow:
    """One prompt and its answer so far."""

    index: int
    """Index of the prompt."""
    prompt: list[int]
    max_tokens: int
    """Maximum number of tokens of the answer."""
    head: tuple[int, ...] = ()
    """Tokens after the common prefix that are computed once for equal prompts."""
    tail: int = 0
    """Number of tokens after the head."""
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    draws: list[float] = field(default_factory=list)
    """A random number in 0..1 for each token."""

    @property
    def max_length(self) -> int:
        """Tokens of prompt and longest possible answer."""
        return len(self.prompt) + self.max_tokens


class Answers:
    """Records chosen tokens, ends rows, and reports progress."""

    def __init__(
        self,
        rows: Sequence[AnswerRow],
        stop_ids: frozenset[int],
        on_progress: OnProgress,
        early_stop: EarlyStop | None,
    ) -> None:
        self._total, self.stop_ids = len(rows), stop_ids
        self._on_progress, self._early_stop = on_progress, early_stop
        self._ended = sum(row.max_tokens <= 0 for row in rows)
        self._reported = -1

    def add(self, rows: Sequence[AnswerRow], tokens: Sequence[int]) -> None:
        """Append the next token of each row, and report progress. Rows that have ended are skipped."""
        for row, token in zip(rows, tokens, strict=True):
            if row.ended:
                continue
            row.tokens.append(token)
            row.ended = token in self.stop_ids or len(row.tokens) >= row.max_tokens or self._stops_early(row)
            self._ended += row.ended
        # An unfinished answer counts in part: a third of its maximum length as a third of an answer.
        parts = sum(_PARTS * len(row.tokens) // (row.max_tokens + 1) for row in rows if not row.ended)
        self._reported = max(self._reported, self._ended + parts // _PARTS)
        self._on_progress(self._reported, self._total)

    def finish(self) -> None:
        """Report that all answers are complete."""
        if self._reported < self._total:
            self._on_progress(self._total, self._total)

    def _stops_early(self, row: AnswerRow) -> bool:
        if self._early_stop is None or len(row.tokens) % _CHECK_EVERY:
            return False
        return self._early_stop(row.index, list(row.tokens))


@dataclass(frozen=True)
class Sampler:
    """Chooses the next token: the most likely one at temperature 0, else a random one."""

    temperature: float = 0.0
    """Divides the logits."""
    top_p: float = 1.0
    """Share of the probability that tokens are sampled from. The most likely token can always be drawn."""
    seed: int = 0
    """Decides, with the index of a prompt, its samples. Other prompts and batches have no influence."""

    def draw(self, row: AnswerRow) -> None:
        """Draw the random numbers of a row. They depend on the seed and the row's index only."""
        if self.temperature > 0:
            rng = np.random.default_rng((self.seed % (1 << 64), row.index))
            row.draws = rng.random(row.max_tokens + 1).tolist()

    def choose(self, logits: Tensor, rows: Sequence[AnswerRow]) -> Tensor:
        """The next token of each row, `batch`, from logits `batch vocabulary`."""
        if self.temperature <= 0:
            return logits.argmax(-1)
        draws = torch.tensor([row.draws[len(row.tokens)] for row in rows], dtype=torch.float64, device=logits.device)
        return sample(logits, draws, temperature=self.temperature, top_p=self.top_p)


GREEDY = Sampler()


def sample(logits: Tensor, draws: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Sample one token per row, `batch`, from the most likely tokens whose probabilities sum up to `top_p`.

    `logits` are `batch vocabulary`; `draws` are uniform random numbers in 0..1, `batch`, which decide the token.
    """
    scores, tokens = (logits.float() / temperature).sort(dim=-1, descending=True, stable=True)
    reached = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    # The first token at which the share is reached is the last one that can be drawn.
    last = torch.searchsorted(reached, reached[:, -1:] * top_p).clamp(max=reached.shape[-1] - 1)
    place = torch.searchsorted(reached, reached.gather(1, last) * draws[:, None], right=True).minimum(last)
    return tokens.gather(1, place)[:, 0]
