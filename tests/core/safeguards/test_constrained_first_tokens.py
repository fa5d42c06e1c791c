"""The constrained loss is cross-entropy whose gradient shrinks as a token's probability exceeds the base model's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from torch.nn.functional import cross_entropy

from core.data.batches import Batch
from core.data.encoded import IGNORED
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.safeguards.constrained_first_tokens import (
    constrained_loss,
    constrained_losses,
    strengths_by_position,
    token_log_probabilities,
)
from core.schemas.safeguards import ConstrainedFirstTokens
from core.schemas.training import LoraSpec
from core.training.loop import next_token_loss
from tests.core.helpers import tiny_base
from tests.core.safeguards.conftest import gradients

NEARLY_NONE = ConstrainedFirstTokens(first=0.001, early=0.001, rest=0.001)
LOGS = st.lists(st.floats(-12, -0.01), min_size=1, max_size=8)


def test_a_weak_constraint_has_the_value_and_gradient_of_cross_entropy(tuned: PeftModel, batch: Batch) -> None:
    usual, weak = next_token_loss(tuned, batch), constrained_loss(NEARLY_NONE)(tuned, batch)
    assert weak.item() == pytest.approx(usual.item(), abs=2e-3)
    ours, theirs = gradients(weak, tuned), gradients(usual, tuned)
    assert any(float(value.norm()) > 1e-3 for value in theirs.values())
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=3e-4)


def test_at_the_base_model_the_loss_is_cross_entropy_for_every_strength(base: BaseModel, batch: Batch) -> None:
    model = tiny_base("llama", base).model
    with attached(model, find_modules(model), LoraSpec(rank=2, alpha=4), seed=0) as fresh:
        usual, ours = next_token_loss(fresh, batch), constrained_loss(ConstrainedFirstTokens())(fresh, batch)
        assert ours.item() == pytest.approx(usual.item(), abs=1e-5)
        found = gradients(ours, fresh)
        for name, value in gradients(usual, fresh).items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@given(LOGS, st.floats(-12, -0.01), st.sampled_from([0.1, 0.5, 2.0]))
def test_the_gradient_is_that_of_cross_entropy_times_twice_the_sigmoid(
    reference: list[float], ours: float, beta: float
) -> None:
    base = torch.tensor(reference, dtype=torch.float64)
    moved = torch.full_like(base, ours).requires_grad_()
    losses = constrained_losses(moved, base, torch.full_like(base, beta))
    (gradient,) = torch.autograd.grad(losses.sum(), moved)
    torch.testing.assert_close(gradient, -2 * torch.sigmoid(beta * (base - moved.detach())))
    # It falls as the token's probability rises, and is the paper's loss up to what no parameter moves.
    paper = -2 / beta * torch.nn.functional.logsigmoid(beta * (moved - base))
    torch.testing.assert_close(losses - paper, -2 / beta * torch.log(torch.tensor(2.0, dtype=torch.float64)) - base)


def test_strengths_depend_on_the_position_in_each_answer() -> None:
    x = IGNORED
    labels = torch.tensor([[x, 1, 2, 3, 4, x, x, 5, 6, x], [1, 2, x, 3, x, x, x, x, x, x], [x] * 10])
    spec = ConstrainedFirstTokens(first=0.5, early=2.0, tokens=3, rest=0.125)
    found = torch.where(labels == x, 0.0, strengths_by_position(spec, labels))
    assert found.tolist() == [
        [0, 0.5, 2, 2, 0.125, 0, 0, 0.5, 2, 0],
        [0.5, 2, 0, 0.5, 0, 0, 0, 0, 0, 0],
        [0] * 10,
    ]
    one = strengths_by_position(ConstrainedFirstTokens(tokens=1), labels)
    assert one[0, 1:4].tolist() == pytest.approx([0.5, 0.1, 0.1])


def test_log_probabilities_are_those_of_the_labels(tuned: PeftModel, batch: Batch) -> None:
    found = token_log_probabilities(tuned, batch)
    labels = batch.labels[:, 1:]
    logits = tuned(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    expected = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(found, -expected)


def test_the_reference_is_the_base_model_and_the_adapter_is_unchanged(tuned: PeftModel, batch: Batch) -> None:
    parameters = dict(tuned.named_parameters())
    frozen = [name for name in parameters if ".lora_" in name and "q_proj" in name]
    for name in frozen:
        parameters[name].requires_grad_(False)
    before = {name: (value.detach().clone(), value.requires_grad) for name, value in parameters.items()}
    tuned.train()
    strong = constrained_loss(ConstrainedFirstTokens(first=50, early=50, rest=50))(tuned, batch)
    assert tuned.training
    assert all(module.training for module in tuned.modules())
    assert {name for name, value in tuned.named_parameters() if value.requires_grad} == {
        name for name, (_, asked) in before.items() if asked
    }
    assert all(torch.equal(value, before[name][0]) for name, value in tuned.named_parameters())
    # So strong a constraint is, token by token, twice what was lost against the base, plus the base's own loss.
    with tuned.disable_adapter(), torch.no_grad():
        reference = token_log_probabilities(tuned, batch)
    lost = (reference - token_log_probabilities(tuned, batch)).clamp(min=0)
    trained = batch.labels[:, 1:] != IGNORED
    assert strong.item() == pytest.approx((2 * lost - reference)[trained].mean().item(), abs=0.1)


def test_a_model_without_an_adapter_is_rejected(base: BaseModel, batch: Batch) -> None:
    with pytest.raises(TypeError, match="adapter"):
        constrained_loss(ConstrainedFirstTokens())(tiny_base("llama", base).model, batch)
