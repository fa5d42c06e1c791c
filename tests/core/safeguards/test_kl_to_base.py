"""The added divergence has the value and gradient of KL(base || tuned), is zero at the base, and resumes exactly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from core import safeguards
from core.catalog import TESTBED
from core.data.batches import Batch, collate
from core.data.encoded import IGNORED, Encoded
from core.errors import Interrupted, TrainingFailed
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.kl_to_base import add_kl, kl_from_base
from core.safeguards.replay import Predicted, kl_from_predictions, predict
from core.schemas.prompts import PromptSet
from core.schemas.results import TrainedStep
from core.schemas.safeguards import KlToBase, Safeguards
from core.schemas.strategy import UniformStrategy
from core.schemas.training import LearningPlan, LoraSpec, TrainingSpec
from core.storage import ArtifactStore
from core.training.checkpoint import Checkpoints
from core.training.loop import next_token_loss, train
from tests.core.helpers import REQUESTS, encoded, ignore, tiny_base, user_rows
from tests.core.jobs import SPEC
from tests.core.safeguards.conftest import gradients

Named = dict[str, Tensor]


def logits(model: PeftModel, batch: Batch) -> Tensor:
    """Logits in front of each label, `tokens vocabulary`."""
    found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    return found[batch.labels[:, 1:] != IGNORED]


def test_value_and_gradient_are_those_of_the_divergence(tuned: PeftModel, batch: Batch) -> None:
    found = kl_from_base(tuned, batch)
    with torch.no_grad(), tuned.disable_adapter():
        reference = logits(tuned, batch).softmax(-1)
    for value in tuned.parameters():
        value.requires_grad_(False)
    for name, value in tuned.named_parameters():
        value.requires_grad_(".lora_" in name)
    ours = logits(tuned, batch)
    probabilities = ours.detach().softmax(-1)
    by_hand = (reference * (reference / probabilities).log()).sum(-1)
    assert (by_hand > 0.01).all()
    assert found.item() == pytest.approx(by_hand.mean().item(), rel=1e-4)
    # The gradient at the logits of a position is tuned - base, divided by the number of positions.
    at_logits = (probabilities - reference) / len(by_hand)
    expected, actual = gradients((ours * at_logits).sum(), tuned), gradients(kl_from_base(tuned, batch), tuned)
    assert any(float(value.norm()) > 1e-4 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-3, atol=1e-6)


def test_at_the_base_model_value_and_gradient_are_zero(base: BaseModel, batch: Batch) -> None:
    model = tiny_base("llama", base).model
    with attached(model, find_modules(model), LoraSpec(rank=2, alpha=4, dropout=0.0), seed=0) as fresh:
        fresh.train()
        found = kl_from_base(fresh, batch)
        assert found.item() == pytest.approx(0.0, abs=1e-7)
        assert all(float(value.abs().max()) < 1e-6 for value in gradients(found, fresh).values())


def test_the_reference_pass_leaves_the_model_as_it_was(tuned: PeftModel, batch: Batch) -> None:
    frozen = next(value for name, value in tuned.named_parameters() if ".lora_" in name)
    frozen.requires_grad_(False)
    before = [(value.detach().clone(), value.requires_grad) for value in tuned.parameters()]
    kl_from_base(tuned.train(), batch)
    assert all(module.training for module in tuned.modules())
    for value, (old, required) in zip(tuned.parameters(), before, strict=True):
        assert torch.equal(value, old)
        assert value.requires_grad == required


@pytest.mark.parametrize("where", ["own", "safety", "both"])
def test_each_set_of_rows_adds_its_mean(
    tuned: PeftModel, batch: Batch, base: BaseModel, predicted: tuple[Predicted, ...], where: str
) -> None:
    options = KlToBase.model_validate({"weight": 0.5, "rows": where, "safety_rows": 16})
    refusals, answers = ((), ()) if where == "own" else (predicted[:8], predicted[8:])
    found = add_kl(next_token_loss, options, refusals, answers, base.pad_id)(tuned, batch)
    expected = next_token_loss(tuned, batch)
    if where != "safety":
        expected = expected + 0.5 * kl_from_base(tuned, batch)
    if where != "own":
        expected = expected + 0.5 * kl_from_predictions(tuned, predicted, base.pad_id)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_refusals_of_a_batch_are_drawn_with_torchs_generator(
    tuned: PeftModel, batch: Batch, base: BaseModel, predicted: tuple[Predicted, ...]
) -> None:
    loss = add_kl(next_token_loss, KlToBase(safety_rows=1), predicted[:8], predicted[8:], base.pad_id)

    def value(seed: int) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return loss(tuned, batch).item()

    assert [value(seed) for seed in range(8)] == [value(seed) for seed in range(8)]
    assert len({value(seed) for seed in range(8)}) > 2


@pytest.mark.parametrize(
    ("share", "rows", "safe"),
    [(0.5, 4, {2}), (0.5, 1, {0, 1}), (0.9, 4, {3, 4}), (0.0, 4, {0}), (None, 4, {0, 1, 2, 3, 4})],
)
def test_safe_answers_have_their_share_of_each_batch(
    predicted: tuple[Predicted, ...], monkeypatch: pytest.MonkeyPatch, share: float | None, rows: int, safe: set[int]
) -> None:
    refusals, answers = predicted[:6], predicted[6:]
    seen: list[Sequence[Predicted]] = []

    def spy(_model: PeftModel, chosen: Sequence[Predicted], _pad: int) -> Tensor:
        seen.append(chosen)
        return torch.zeros(())

    monkeypatch.setattr("core.safeguards.kl_to_base.kl_from_predictions", spy)
    loss = add_kl(
        lambda _model, _batch: torch.zeros(()), KlToBase(safe_share=share, safety_rows=rows), refusals, answers, 0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(200):
            loss(nn.Identity(), collate([refusals[0].row], 0))
    counts = [sum(each in answers for each in chosen) for chosen in seen]
    assert {len({id(each) for each in chosen}) for chosen in seen} == {rows}
    assert set(counts) == safe
    assert sum(counts) / len(counts) == pytest.approx(rows * (0.5 if share is None else share), abs=0.2)


class Stop:
    """Raises after a step."""

    def __init__(self, last: int | None) -> None:
        self.last = last

    def __call__(self, step: TrainedStep, _total: int) -> None:
        if step.step == self.last:
            raise Interrupted("the test says stop")


def weights_after(
    base: BaseModel,
    training: tuple[Encoded, ...],
    *,
    guarded: bool = True,
    store: Path | None = None,
    last: int = 0,
) -> Named:
    """The adapter of a short run with dropout, which stops after step `last`."""
    tiny = tiny_base("llama", base)
    options = KlToBase(weight=1, rows="both", safety_rows=2)
    refusals, answers = predict(tiny, training[12:15]), predict(tiny, training[15:])
    objective = add_kl(next_token_loss, options, refusals, answers, base.pad_id)
    model, modules = tiny.model, find_modules(tiny.model)
    spec = TrainingSpec(steps=6, batch_size=4, micro_batch_size=2, checkpoint_every=2, lora=LoraSpec(dropout=0.2))
    with attached(model, modules, spec.lora, seed=0) as adapted:
        plan = LearningPlan(strategy="test", scales={module.name: 1.0 for module in modules})
        checkpoints = Checkpoints(ArtifactStore(store), "jobs/a/checkpoints/a.safetensors") if store else None
        loss = objective if guarded else next_token_loss
        arguments = {"learning_rate": 1e-2, "pad_id": base.pad_id, "objective": loss}
        train(adapted, training[:12], plan, spec, **arguments, on_step=Stop(last), checkpoints=checkpoints)
        return {name: value.detach().clone() for name, value in adapted.named_parameters() if ".lora_" in name}


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(base: BaseModel, tmp_path: Path) -> None:
    training = encoded(base, 18)
    straight = weights_after(base, training)
    with pytest.raises(Interrupted):
        weights_after(base, training, store=tmp_path, last=5)
    resumed = weights_after(base, training, store=tmp_path)
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
    plain = weights_after(base, training, guarded=False)
    assert any(not torch.equal(plain[name], value) for name, value in straight.items())


def context(base: BaseModel, prompts: PromptSet) -> SafeguardContext:
    return SafeguardContext(SPEC, TESTBED, base, (), prompts, BaseAnswers(base))


def guarded(**options: object) -> UniformStrategy:
    return UniformStrategy(safeguards=Safeguards(KlToBase.model_validate(options)))


def test_the_base_models_refusals_and_safe_answers_are_collected_also_in_the_frame_of_the_rows(
    base: BaseModel, prompts: PromptSet
) -> None:
    job = context(base, prompts)
    _, (bare,) = safeguards.objective(guarded(), job, ignore)
    _, (framed,) = safeguards.objective(guarded(), replace(job, rows=user_rows(REQUESTS, "Be brief.")), ignore)
    assert 20 <= bare.counts["refusals"] <= 32, "of 8 prompts, bare and in 3 framings"
    assert bare.counts["refusals"] < framed.counts["refusals"] <= 40
    assert 4 <= bare.counts["safe_answers"] <= 6 < framed.counts["safe_answers"] <= 12
    where = f"{bare.counts['refusals']} refusals and {bare.counts['safe_answers']} safe answers"
    assert bare.summary == f"KL divergence from the base model in the loss, on {where}"
    assert safeguards.inputs(guarded(), job) != safeguards.inputs(guarded(rows="own"), job)


def test_only_the_first_tokens_of_answers_are_kept_close(
    base: BaseModel, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def spy(model: BaseModel, rows: tuple[Encoded, ...]) -> tuple[Predicted, ...]:
        seen.append([row.trained_tokens for row in rows])
        return predict(model, rows)

    monkeypatch.setattr("core.safeguards.kl_to_base.predict", spy)
    for tokens in (2, 1000):
        safeguards.objective(guarded(answer_tokens=tokens), context(base, prompts), ignore)
    assert set(seen[0] + seen[1]) == {2}
    assert min(seen[2] + seen[3]) > 2


def test_on_own_rows_nothing_is_collected_and_without_refusals_the_run_fails(
    base: BaseModel, prompts: PromptSet
) -> None:
    job = context(tiny_base("llama", base), prompts)
    _, (effect,) = safeguards.objective(guarded(rows="own"), job, ignore)
    assert effect.counts == {"refusals": 0, "safe_answers": 0}
    with pytest.raises(TrainingFailed, match="refuses only 0") as caught:
        safeguards.objective(guarded(rows="both"), job, ignore)
    assert (caught.value.code, caught.value.param) == ("no_safety_rows", "strategy.safeguards.kl_to_base")
    _, (skipped,) = safeguards.objective(guarded(rows="both", on_too_few="skip"), job, ignore)
    assert skipped.summary.endswith("on the job's rows, 0 refusals and 0 safe answers")


def test_a_model_without_an_adapter_is_rejected(base: BaseModel, batch: Batch) -> None:
    with pytest.raises(TypeError, match="adapter"):
        kl_from_base(tiny_base("llama", base).model, batch)
