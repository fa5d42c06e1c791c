"""Used by the tests of safeguards: a few prompts of the testbed's own set, and a tiny model with an adapter."""

from collections.abc import Iterator

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from core.attacks.prompts import choose_prompts
from core.data.batches import Batch, collate
from core.data.encoded import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.safeguards.replay import Predicted, predict
from core.schemas.prompts import PromptSet
from core.schemas.security import SecuritySpec
from core.schemas.training import LoraSpec
from tests.core.helpers import encoded, tiny_base


@pytest.fixture(scope="module")
def prompts(base: BaseModel) -> PromptSet:
    """The testbed's own prompt set, reduced to a few prompts."""
    whole = choose_prompts(SecuritySpec(), base.folder)
    probe = whole.probe.model_copy(update={"harmful": whole.probe.harmful[:8], "safe": whole.probe.safe[:6]})
    return whole.model_copy(update={"probe": probe})


@pytest.fixture
def batch(base: BaseModel) -> Batch:
    """Three rows."""
    return collate(encoded(base, 3), base.pad_id)


@pytest.fixture
def tiny(base: BaseModel) -> BaseModel:
    """An untrained model."""
    return tiny_base("llama", base)


@pytest.fixture
def safety(base: BaseModel) -> tuple[Encoded, ...]:
    """Rows that stand for refusals and safe answers."""
    return encoded(base, 12)


@pytest.fixture
def predicted(tiny: BaseModel, safety: tuple[Encoded, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[Predicted, ...]:
    """What the untrained model predicts on them. Its predictions are nearly even, so all tokens are kept."""
    monkeypatch.setattr("core.safeguards.replay.KEPT", 10_000)
    return predict(tiny, safety)


@pytest.fixture
def tuned(tiny: BaseModel, predicted: tuple[Predicted, ...]) -> Iterator[PeftModel]:
    """The untrained model with an adapter whose matrices are all nonzero. `predicted` is from before."""
    assert predicted
    with attached(tiny.model, find_modules(tiny.model), LoraSpec(rank=2, alpha=4), seed=0) as adapted:
        fill_adapter(adapted)
        yield adapted


def fill_adapter(adapted: PeftModel) -> None:
    """Make all matrices of an adapter nonzero."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.5)


def gradients(loss: Tensor, model: PeftModel) -> dict[str, Tensor]:
    """Gradients of the loss by the name of the parameter."""
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
