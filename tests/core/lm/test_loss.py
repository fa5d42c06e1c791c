"""The loss of a row is the mean over its labelled tokens, whatever else is in the batch."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from typing_extensions import override

from core.data.batches import collate
from core.lm.load import BaseModel
from core.lm.loss import batch_losses, find_labels, token_losses
from core.lm.modules import find_modules
from tests.core.helpers import FAMILIES, encoded, tiny_base


class Fixed(nn.Module):
    """A model whose head is given these logits, whatever it reads."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.head = nn.Identity()
        self.given = logits

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    @override
    def forward(self, **_inputs: torch.Tensor) -> CausalLMOutput:
        return CausalLMOutput(logits=self.head(self.given))


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    return batch_losses(Fixed(logits), labels, labels, labels).tolist()


def test_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    # Predicted from the place before: token 1 after [0, 0], token 0 after [0, 1]; the last logits predict nothing.
    labels = torch.tensor([[0, 1, -100, 0]])
    first = torch.log(torch.tensor(2.0))
    second = torch.log1p(torch.exp(torch.tensor(1.0)))
    assert row_losses(logits, labels) == pytest.approx([float(first + second) / 2])


def test_a_row_without_labels_is_zero_and_no_division() -> None:
    assert row_losses(torch.randn(2, 4, 3), torch.full((2, 4), -100)) == [0.0, 0.0]


def test_rows_of_a_batch_do_not_touch_and_agree_with_transformers(base: BaseModel) -> None:
    rows = encoded(base, 6)
    batch = collate(rows, base.pad_id)
    found = batch_losses(base.model, batch.input_ids, batch.attention_mask, batch.labels)
    assert found.shape == (6,)
    for row, loss in zip(rows, found.tolist(), strict=True):
        alone = collate([row], base.pad_id)
        with torch.inference_mode():
            own = base.model(
                input_ids=alone.input_ids, attention_mask=alone.attention_mask, labels=alone.labels
            ).loss.item()
        assert loss == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers(base: BaseModel, family: str) -> None:
    here = tiny_base(family, base)
    here.model.requires_grad_()
    batch = collate(encoded(base, 6), base.pad_id)
    positions, wanted = find_labels(batch.labels)
    assert 0 < len(positions) < batch.attention_mask.sum() - 6, "every token is labelled: nothing is left out"

    loss = token_losses(here.model, batch.input_ids, batch.attention_mask, positions, wanted).mean()
    found = gradients(here.model, loss)
    theirs = here.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert torch.allclose(found, gradients(here.model, theirs), rtol=1e-3, atol=1e-6)


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> torch.Tensor:
    """Gradients of the weights of all modules, in one row."""
    weights = [model.get_parameter(name) for name in {module.weight: None for module in find_modules(model)}]
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])
