"""Engines that generate answers: transformers, or vLLM if the job asks for it.

Not here: generation itself (core.lm.generate, core.lm.vllm_engine), prompts (ask).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

from torch import nn

from core.attacks.ask import Generate
from core.lm.generate import answer, render_prompts
from core.lm.load import BaseModel
from core.lm.texts import AnswerTexts
from core.lm.vllm_engine import VllmModel, opened
from core.schemas.data import Message
from core.schemas.progress import OnProgress
from core.schemas.security import SecuritySpec

_VLLM_BATCH = 256
"""Prompts that vLLM gets between two reports of progress."""


@dataclass(frozen=True)
class TrainedFiles:
    """The stored files of a trained model."""

    folder: Path
    """Folder of the adapter or of the whole model."""
    rank: int | None
    """Rank of the adapter; None for a whole model."""


@contextmanager
def open_engine(
    base: BaseModel, model: nn.Module, spec: SecuritySpec, trained: TrainedFiles | None
) -> Iterator[Generate]:
    """Open the engine of `spec` for `model`: the base model itself, or a trained one, which vLLM reads from files."""
    match spec.engine:
        case "transformers":
            yield transformers_engine(base, model, spec)
        case "vllm":
            if trained is None or trained.rank is None:
                files = (base.folder if trained is None else trained.folder, None, 1)
            else:
                files = (base.folder, trained.folder, trained.rank)
            with opened(base, *files) as served:
                yield partial(_answer_with_vllm, base, served, spec)
        case _:
            assert_never(spec.engine)


def transformers_engine(base: BaseModel, model: nn.Module, spec: SecuritySpec) -> Generate:
    """Generate in batches with the one copy of the base weights."""
    return partial(answer, base, model, max_new_tokens=spec.max_new_tokens, seed=spec.seed)


def _answer_with_vllm(
    base: BaseModel,
    served: VllmModel,
    spec: SecuritySpec,
    conversations: Sequence[Sequence[Message]],
    *,
    temperature: float,
    top_p: float,
    early_stop: Callable[[int, str], bool] | None,
    on_progress: OnProgress,
) -> list[str | None]:
    """Generate with vLLM, which does not stop answers early."""
    del early_stop
    prompts = render_prompts(base, conversations, max_new_tokens=spec.max_new_tokens)
    texts = AnswerTexts(base, conversations, prompts, max_new_tokens=spec.max_new_tokens)
    fitting = [(index, prompt) for index, prompt in enumerate(prompts) if prompt is not None]
    answers: list[str | None] = [None] * len(prompts)
    batch_size = base.limit_batch(_VLLM_BATCH, len(fitting))
    for start in range(0, len(fitting), batch_size):
        on_progress(start, len(fitting))
        batch = fitting[start : start + batch_size]
        rows = served.continue_tokens(
            [prompt for _, prompt in batch],
            max_new_tokens=spec.max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seeds=[spec.seed + index for index, _ in batch],
        )
        for (index, _), row in zip(batch, rows, strict=True):
            answers[index] = texts.write(index, row)
    on_progress(len(fitting), len(fitting))
    return answers
