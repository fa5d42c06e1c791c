"""What a world's model tells of rows before any tuning: their pull, and whether it would refuse what they answer.

Covers: where planted rows stand among the others. Not here: the measures themselves (core.screening), what is trained
on rows that are left.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from core.attacks.prompts import choose
from core.catalog import TESTBED
from core.data import Conversation
from core.data.batches import encode_all
from core.data.template import Encoded, end_of_turn
from core.lm.load import BaseModel, load
from core.lm.modules import find_modules
from core.schemas.base import Frozen
from core.schemas.models import FolderSource
from core.schemas.prompts import ProbePrompts
from core.schemas.security import SecuritySpec
from core.screening.pull import pulls
from core.screening.refused import refused

_LONGEST = 512


class PlantedRows(Frozen):
    """Rows of one kind among the ordinary ones, and where they rank."""

    rows: int
    """How many."""
    mean: float
    """Their mean pull, nats per token and unit of movement."""
    auroc: float
    """How often one of them pulls more than an ordinary row: 0.5 is chance."""
    in_top: float
    """Share of them, in per cent, whose pull is that of the top share of the ordinary rows, or more."""


def rank(folder: Path, rows: Sequence[Conversation]) -> tuple[NDArray[np.float64], float]:
    """Pulls of the rows in their order, and the seconds that it took. Only pulls of one call are comparable.

    Raises:
        ValueError: a row is too long to be trained on.
    """
    base, prompts = _asked(folder)
    started = time.monotonic()
    found = np.array(pulls(base, find_modules(base.model), _encoded(base, rows), prompts, on_progress=_ignore))
    return found, time.monotonic() - started


def likely_refused(folder: Path, rows: Sequence[Conversation]) -> tuple[NDArray[np.float64], float]:
    """How likely the model is to refuse what each row answers, and the seconds that it took.

    Raises:
        ValueError: a row is too long to be trained on.
    """
    base, prompts = _asked(folder)
    started = time.monotonic()
    found = np.array(refused(base, _encoded(base, rows), prompts, on_progress=_ignore))
    return found, time.monotonic() - started


def _asked(folder: Path) -> tuple[BaseModel, ProbePrompts]:
    torch.set_num_threads(1)
    base = load(TESTBED.model_copy(update={"source": FolderSource(path=folder / "model")}), torch.device("cpu"))
    base.stop_also_at(end_of_turn(base.tokenizer))
    return base, choose(SecuritySpec(), base.folder).probe


def _encoded(base: BaseModel, rows: Sequence[Conversation]) -> tuple[Encoded, ...]:
    encoded = encode_all(rows, base.tokenizer, max_length=_LONGEST).rows
    if len(encoded) != len(rows):
        raise ValueError("a row is too long to be trained on")
    return encoded


def placed(ordinary: NDArray[np.float64], planted: NDArray[np.float64], share: float) -> PlantedRows:
    """Where planted rows stand among the ordinary ones, and beside the top share of those."""
    among = np.concatenate([planted, ordinary])
    return PlantedRows(
        rows=len(planted),
        mean=float(planted.mean()),
        auroc=float(roc_auc_score(np.arange(len(among)) < len(planted), among)),
        in_top=float(100 * (planted >= np.quantile(ordinary, 1 - share)).mean()),
    )


def _ignore(*_: object) -> None:
    """Nobody waits for progress here."""
