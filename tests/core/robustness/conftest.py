"""Fixtures of the analysis tests: the testbed's probe prompts, probes trained as in a job, probe activations."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest
import torch
from peft import PeftModel

from core.attacks.prompts import choose_prompts
from core.data.encoded import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module, find_modules
from core.robustness.analyse import EarlyStop, TrainProbe
from core.robustness.probe_activations import ProbeActivations
from core.schemas.analysis import ProbeSpec
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
"""So different that even a random model separates them."""


def probe_of(base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...], rate: float = 3e-3) -> TrainProbe:
    """A real probe run, short and at a rate that shows in a few steps."""

    def trained(wanted: ProbeSpec, seed: int, early_stop: EarlyStop) -> AbstractContextManager[PeftModel]:
        spec = TrainingSpec(steps=wanted.steps, batch_size=4, schedule="constant", warmup_ratio=0.0)
        run = partial(probe, base, modules, rows, spec, learning_rate=rate, on_step=lambda *_: None)
        return run(wanted, seed=seed, early_stop=early_stop)

    return trained


@contextmanager
def changed(base: BaseModel, scale: float) -> Iterator[PeftModel]:
    """A model with an adapter on all modules, as a probe leaves it, but of numbers drawn at random."""
    with attached(base.model, find_modules(base.model), LoraSpec(rank=2, alpha=4), seed=0) as tuned:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if ".lora_B" in name:
                    parameter.normal_(std=scale, generator=generator)
        yield tuned.eval()


def activations_of(base: BaseModel, rows: tuple[Encoded, ...]) -> ProbeActivations:
    """Readings of a random model."""
    return ProbeActivations(base, FAR_APART, rows, count=COUNT, seed=0, on_progress=ignore)


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
def activations(base: BaseModel, prompts: ProbePrompts, rows: tuple[Encoded, ...]) -> ProbeActivations:
    """Readings of the testbed, few."""
    return ProbeActivations(base, prompts, rows, count=COUNT, seed=0, on_progress=ignore)
