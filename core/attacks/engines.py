"""Engines that generate answers: transformers, or vLLM if the job asks for it.

Not here: generation itself (core.lm.generate, core.lm.vllm_engine), prompts (ask).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

from torch import nn

from core.attacks.ask import Generate
from core.lm.generate import answer
from core.lm.load import BaseModel
from core.lm.vllm_engine import ServedFiles, VllmModel, open_vllm
from core.schemas.security import SecuritySpec


@dataclass(frozen=True)
class TrainedFiles:
    """The stored files of a trained model."""

    folder: Path
    """Folder of the adapter or of the whole model."""
    rank: int | None
    """Rank of the adapter; None for a whole model."""


@contextmanager
def open_engine(
    base: BaseModel, model: nn.Module, spec: SecuritySpec, trained: TrainedFiles | None, vllm_python: Path | None
) -> Iterator[Generate]:
    """Open the engine of `spec` for `model`: the base model itself, or a trained one, which vLLM reads from files.

    `vllm_python` is the Python interpreter that has vLLM.
    """
    match spec.engine:
        case "transformers":
            yield generate_with(base, model, spec)
        case "vllm":
            if trained is None or trained.rank is None:
                files = ServedFiles(base.folder if trained is None else trained.folder)
            else:
                files = ServedFiles(base.folder, trained.folder, trained.rank)
            with open_vllm(vllm_python, base, files, model) as served:
                yield generate_with(base, served, spec)
        case _:
            assert_never(spec.engine)


def generate_with(base: BaseModel, model: nn.Module | VllmModel, spec: SecuritySpec) -> Generate:
    """Generate as `spec` requests."""
    return partial(answer, base, model, max_new_tokens=spec.max_new_tokens, seed=spec.seed)
