"""What the tests of the analysis share: probe prompts of the testbed, probes trained as a job trains them, readings."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest
import torch
from peft import PeftModel

from core.attacks.prompts import choose_prompts
from core.data.template import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module, find_modules
from core.robustness.analyse import Enough, TrainProbe
from core.robustness.readings import Readings
from core.schemas.prompts import ProbePrompts
from core.schemas.security import SecuritySpec
from core.schemas.training import LoraSpec, TrainingSpec
from core.training.probe import probe
from tests.core.helpers import encoded, ignore

COUNT = 8
FAR_APART = ProbePrompts(
    harmful=tuple(f"{'never ' * 9}{number}" for number in range(COUNT)),
    benign=tuple(f"{'cake ' * 9}{number}" for number in range(COUNT)),
)
"""So far apart that even a random model tells them apart."""


def probe_of(base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], rate: float = 3e-3) -> TrainProbe:
    """A real probe run, short and at a rate that shows in a few steps."""

    def trained(steps: int, seed: int, enough: Enough) -> AbstractContextManager[PeftModel]:
        spec = TrainingSpec(steps=steps, batch_size=4, schedule="constant", warmup_ratio=0.0)
        run = partial(probe, base, modules, rows, spec, learning_rate=rate, on_step=lambda *_: None)
        return run(steps=steps, seed=seed, enough=enough)

    return trained


@contextmanager
def changed(base: BaseModel, scale: float) -> Iterator[PeftModel]:
    """A model with an adapter on all modules, as a probe leaves it, but of numbers drawn at random."""
    with attached(base.model, find_modules(base.model), LoraSpec(rank=2, alpha=4), seed=0) as tuned:
        chance = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if ".lora_B" in name:
                    parameter.normal_(std=scale, generator=chance)
        yield tuned.eval()


def readings_of(base: BaseModel, rows: tuple[Encoded, ...]) -> Readings:
    """Readings of a random model."""
    return Readings(base, FAR_APART, rows, count=COUNT, seed=0, on_progress=ignore)


@pytest.fixture(scope="session")
def prompts(base: BaseModel) -> ProbePrompts:
    """The testbed's own probe prompts."""
    return choose_prompts(SecuritySpec(), base.folder).probe


@pytest.fixture(scope="session")
def rows(base: BaseModel) -> tuple[Encoded, ...]:
    """Some of the user's rows."""
    return encoded(base, 4)


@pytest.fixture(scope="session")
def train_probe(base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...]) -> TrainProbe:
    """Probes of the testbed."""
    return probe_of(base, modules, rows)


@pytest.fixture(scope="session")
def readings(base: BaseModel, prompts: ProbePrompts, rows: tuple[Encoded, ...]) -> Readings:
    """Readings of the testbed, few."""
    return Readings(base, prompts, rows, count=COUNT, seed=0, on_progress=ignore)
