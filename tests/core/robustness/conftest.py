"""What the tests of the analysis share: probe prompts of the testbed, and probes trained as a job trains them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from peft import PeftModel

from core.data.template import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.robustness.analyse import TrainProbe
from core.security.prompts import choose
from core.spec.security import ProbePrompts, SecuritySpec
from core.spec.strategy import UniformStrategy
from core.spec.training import LoraSpec, TrainingSpec
from core.training.loop import train
from core.training.strategies import plan
from tests.core.helpers import encoded


@pytest.fixture(scope="session")
def prompts(base: BaseModel) -> ProbePrompts:
    """The testbed's own probe prompts."""
    return choose(SecuritySpec(), base.folder).probe


@pytest.fixture(scope="session")
def rows(base: BaseModel) -> tuple[Encoded, ...]:
    """Some of the user's rows."""
    return encoded(base, 4)


@pytest.fixture(scope="session")
def train_probe(base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...]) -> TrainProbe:
    """A real probe run, short and at a rate that shows in a few steps."""

    @contextmanager
    def trained(steps: int, seed: int) -> Iterator[PeftModel]:
        spec = TrainingSpec(steps=steps, batch_size=4, schedule="constant", warmup_share=0.0, seed=seed)
        rates = plan(UniformStrategy(), [module.name for module in modules], ())
        with attached(base.model, modules, LoraSpec(), seed=seed) as tuned:
            train(tuned, rows, rates, spec, learning_rate=3e-3, pad_id=base.pad_id, on_step=lambda *_: None)
            yield tuned

    return trained
