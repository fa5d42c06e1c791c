"""Who generates answers: transformers, or vLLM where a job asks for it.

Not here: generation itself (core.lm.generate, core.lm.vllm_engine), what is asked (ask).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from torch import nn

from core.attacks.ask import Answers
from core.attacks.family import Sampling
from core.lm.generate import answer, prompts_of
from core.lm.load import BaseModel
from core.lm.vllm_engine import VllmModel, opened
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.security import SecuritySpec

_AT_ONCE = 256
"""Prompts that vLLM is given between two signs of life."""


@dataclass(frozen=True)
class Tuned:
    """What was trained, as it was stored."""

    folder: Path
    """An adapter's, or that of a whole model."""
    rank: int | None
    """The adapter's rank; None of a whole model."""


@contextmanager
def answering(base: BaseModel, model: nn.Module, spec: SecuritySpec, tuned: Tuned | None) -> Iterator[Answers]:
    """How `model` is asked: the base itself, or the base with what was trained (which vLLM reads from its files)."""
    match spec.engine:
        case "transformers":
            yield by_transformers(base, model, spec)
        case "vllm":
            whole = tuned.folder if tuned is not None and tuned.rank is None else base.folder
            adapter = tuned.folder if tuned is not None and tuned.rank is not None else None
            rank = tuned.rank if tuned is not None and tuned.rank is not None else 1
            with opened(base, whole, adapter, rank) as served:
                yield _by_vllm(base, served, spec)
        case _:
            assert_never(spec.engine)


def by_transformers(base: BaseModel, model: nn.Module, spec: SecuritySpec) -> Answers:
    """Batches on the one copy of the base weights."""

    def answered(
        conversations: Sequence[Sequence[Message]],
        *,
        sampling: Sampling,
        settled: Callable[[int, str], bool] | None,
        on_progress: OnProgress,
    ) -> Sequence[str | None]:
        return answer(
            base,
            model,
            conversations,
            max_new_tokens=spec.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=spec.seed,
            settled=settled,
            on_progress=on_progress,
        )

    return answered


def _by_vllm(base: BaseModel, served: VllmModel, spec: SecuritySpec) -> Answers:
    """Nobody ends an answer early there: `settled` is not asked."""

    def answered(
        conversations: Sequence[Sequence[Message]],
        *,
        sampling: Sampling,
        settled: Callable[[int, str], bool] | None,
        on_progress: OnProgress,
    ) -> Sequence[str | None]:
        del settled
        prompts = prompts_of(base, conversations, max_new_tokens=spec.max_new_tokens)
        asked = [(index, prompt) for index, prompt in enumerate(prompts) if prompt is not None]
        found: list[str | None] = [None] * len(prompts)
        for start in range(0, len(asked), _AT_ONCE):
            on_progress(start, len(asked))
            some = asked[start : start + _AT_ONCE]
            rows = served.continue_tokens(
                [prompt for _, prompt in some],
                max_new_tokens=spec.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seeds=[spec.seed + index for index, _ in some],
            )
            for (index, _), row in zip(some, rows, strict=True):
                found[index] = str(base.tokenizer.decode(row, skip_special_tokens=True)).strip()
        on_progress(len(asked), len(asked))
        return found

    return answered
