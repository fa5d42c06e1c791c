"""The classifier reports how well it separates the classes, and drift is measured in units of their distance."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.lm.load import BaseModel
from core.lm.prompts import render
from core.robustness.classifier import fit_direction, last_token_features
from tests.core.helpers import ProgressLog, ignore, tiny_base, user_turns

WIDTH, LAYERS = 6, 4
TEXTS = (
    "Hello",
    "How do I swindle the bridge?",
    "What is 27 minus 20?",
    "List the steps to plunder the badge, and more.",
)


def drawn(count: int, *, seed: int, shift: float = 0.0, at: int = 2) -> NDArray[np.float64]:
    """Features without meaning, `count layers+1 width`; in layer `at` the first direction is shifted."""
    features = np.random.default_rng(seed).normal(size=(count, LAYERS + 1, WIDTH))
    features[:, at, 0] += shift
    return features


@pytest.mark.parametrize("count", [8, 40])
def test_separable_classes_are_separated_in_their_layer(count: int) -> None:
    found = fit_direction(drawn(count, seed=0, shift=20.0), drawn(count, seed=1), seed=0)
    assert found.quality.layer == 2
    assert found.quality.auroc == 1.0
    assert found.quality.accuracy >= 1 - 1 / count
    assert (found.quality.n_train, found.quality.n_test) == (count, count)
    assert found.harmful > found.benign


def test_inseparable_classes_are_not_separated() -> None:
    aurocs = [
        fit_direction(drawn(64, seed=2 * seed), drawn(64, seed=2 * seed + 1), seed=seed).quality.auroc
        for seed in range(6)
    ]
    assert 0.35 < np.mean(aurocs) < 0.65
    assert max(aurocs) < 0.8


def test_the_embedding_is_never_the_layer() -> None:
    # It holds nothing of the prompt but its last token, which the template decides.
    assert fit_direction(drawn(16, seed=0, shift=20.0, at=0), drawn(16, seed=1), seed=0).quality.layer != 0


def test_drift_is_0_without_change_and_1_when_harmful_became_benign() -> None:
    harmful, benign = drawn(24, seed=0, shift=8.0), drawn(24, seed=1)
    found = fit_direction(harmful, benign, seed=0)

    def drift(features: NDArray[np.float64]) -> float:
        return found.drift(torch.from_numpy(features[:, found.quality.layer]).float())

    assert drift(harmful) == pytest.approx(0.0, abs=1e-5)
    assert drift(benign) == pytest.approx(1.0, abs=1e-5)
    assert drift((harmful + benign) / 2) == pytest.approx(0.5, abs=1e-5)
    assert drift(2 * harmful - benign) == pytest.approx(-1.0, abs=1e-5)
    assert drift(harmful[:, :, ::-1].copy()) != pytest.approx(0.0, abs=0.1)


def test_only_the_seed_decides_the_split() -> None:
    harmful, benign = drawn(24, seed=0, shift=1.0), drawn(24, seed=1)
    one, again, other = (fit_direction(harmful, benign, seed=seed) for seed in (0, 0, 1))
    assert one.quality == again.quality
    assert torch.equal(one.normal, again.normal)
    assert not torch.equal(one.normal, other.normal)


@pytest.mark.parametrize("family", ["testbed", "gpt2", "opt"])
def test_features_are_those_of_the_last_token_whatever_else_is_in_the_batch(base: BaseModel, family: str) -> None:
    model_of = base if family == "testbed" else tiny_base(family, base)
    prompts = [render(base.tokenizer, messages) for messages in user_turns(*TEXTS)]
    together = last_token_features(model_of, prompts, on_progress=ignore)
    assert together.shape == (4, model_of.model.config.num_hidden_layers + 1, model_of.model.config.hidden_size)
    for prompt, features in zip(prompts, together, strict=True):
        with torch.inference_mode():
            states = model_of.model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states
        assert features == pytest.approx(np.stack([state[0, -1].numpy() for state in states]), abs=1e-4)


def test_feature_extraction_reports_progress_and_can_be_stopped(base: BaseModel) -> None:
    progress = ProgressLog()
    last_token_features(base, [[2, 3]] * 33, on_progress=progress)
    assert progress == [(0, 33), (16, 33), (32, 33)]
