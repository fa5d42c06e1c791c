"""The divergence from predictions that were kept equals that from the base model, as far as tokens were kept."""

import pytest
import torch
from peft import PeftModel

from core.data.batches import collate
from core.data.encoded import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.safeguards.kl_to_base import kl_from_base
from core.safeguards.replay import Predicted, kl_from_predictions, predict
from core.schemas.training import LoraSpec
from tests.core.safeguards.conftest import fill_adapter, gradients


def test_the_divergence_from_kept_predictions_is_that_from_the_base_model(
    tuned: PeftModel, tiny: BaseModel, safety: tuple[Encoded, ...], predicted: tuple[Predicted, ...]
) -> None:
    exact = kl_from_base(tuned, collate(safety, tiny.pad_id))
    kept = kl_from_predictions(tuned, predicted, tiny.pad_id)
    assert kept.item() == pytest.approx(exact.item(), rel=1e-4)
    expected, actual = gradients(exact, tuned), gradients(kept, tuned)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-3, atol=1e-6)


def test_with_fewer_tokens_kept_the_others_count_as_one(
    tiny: BaseModel, safety: tuple[Encoded, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.safeguards.replay.KEPT", 8)
    few = predict(tiny, safety)
    assert {each.tokens.shape[1] for each in few} == {8}
    for each in few:
        assert torch.allclose(each.log_probabilities.exp().sum(1), torch.ones(each.tokens.shape[0]), atol=1e-5)
    with attached(tiny.model, find_modules(tiny.model), LoraSpec(rank=2, alpha=4), seed=0) as adapted:
        assert kl_from_predictions(adapted, few, tiny.pad_id).item() == pytest.approx(0.0, abs=1e-6)
        fill_adapter(adapted)
        exact = kl_from_base(adapted, collate(safety, tiny.pad_id)).item()
        assert 0.001 < kl_from_predictions(adapted, few, tiny.pad_id).item() < exact
