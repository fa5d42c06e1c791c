"""A reading is 0 drift on the unchanged base, the same each time, and moves when the model does."""

import pytest
import torch

from core.data.template import Encoded
from core.lm.generate import continue_tokens
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.prompts import render
from core.quality.loss import row_losses
from core.robustness.perturb import Noise
from core.robustness.probe import Probe
from core.spec.security import ProbePrompts
from tests.core.helpers import asked, ignore

COUNT = 8


@pytest.fixture(scope="module")
def probe(base: BaseModel, prompts: ProbePrompts, rows: tuple[Encoded, ...]) -> Probe:
    return Probe(base, prompts, rows, count=COUNT, seed=0, tick=ignore)


def test_the_base_has_not_drifted(base: BaseModel, probe: Probe, rows: tuple[Encoded, ...]) -> None:
    found = probe.read(base.model)
    assert found.feature_drift == pytest.approx(0.0, abs=1e-4)
    assert found.task_loss == pytest.approx(sum(row_losses(base, base.model, rows, tick=ignore)) / len(rows), abs=1e-4)
    assert probe.read(base.model) == found
    assert probe.direction.quality.n_train + probe.direction.quality.n_test == 2 * COUNT


def test_the_refusal_reading_is_of_the_bases_own_first_answer_tokens(
    base: BaseModel, probe: Probe, prompts: ProbePrompts
) -> None:
    each = []
    for messages in asked(*prompts.harmful[:COUNT]):
        prompt = render(base.tokenizer, messages)
        (own,) = continue_tokens(base, base.model, [prompt], max_new_tokens=8, tick=ignore)
        with torch.inference_mode():
            logits = base.model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
        each.append(-logits.log_softmax(-1)[range(len(own)), own].mean().item())
    assert probe.read(base.model).refusal_nll == pytest.approx(sum(each) / len(each), abs=1e-4)


def test_a_broken_model_reads_otherwise(base: BaseModel, modules: tuple[Module, ...], probe: Probe) -> None:
    before = probe.read(base.model)
    with Noise(base.model, modules, relative_norm=10.0, seed=0).moved([module.name for module in modules]):
        after = probe.read(base.model)
    assert after.refusal_nll > before.refusal_nll + 0.3
    assert abs(after.task_loss - before.task_loss) > 0.1
    assert abs(after.feature_drift) > 0.01
    assert probe.read(base.model) == before


def test_preparing_it_can_be_stopped(base: BaseModel, prompts: ProbePrompts, rows: tuple[Encoded, ...]) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Probe(base, prompts, rows, count=COUNT, seed=0, tick=stop)
