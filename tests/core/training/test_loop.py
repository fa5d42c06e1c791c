"""The loop trains each module with its own rate, reproducibly, and ends when it must."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor, nn

from core.catalog import TESTBED
from core.data.batches import Batch
from core.data.encoded import IGNORED, Encoded
from core.errors import TrainingFailed
from core.lm.adapter import attached, lora_layers
from core.lm.load import BaseModel, load
from core.lm.modules import Module
from core.quality.loss import mean_loss, row_losses
from core.schemas.results import TrainedStep, ValidatedStep
from core.schemas.training import LearningPlan, LoraSpec, Precision, TrainingSpec
from core.training.idle import disable_idle_adapters
from core.training.loop import Objective, OnStep, RefusalNll, Trained, is_logged, next_token_loss, train
from tests.core.helpers import encoded, ignore, logits, module_of

SPEC = TrainingSpec(steps=3, batch_size=4, lora=LoraSpec(rank=4, alpha=8), warmup_ratio=0.0, schedule="constant")
RATE = 3e-3
Adapter = dict[str, Tensor]


def nobody(_step: TrainedStep, _total: int) -> None:
    """Ignores the step."""


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> tuple[Encoded, ...]:
    return encoded(base, 10)


class Bench:
    """Trains a fresh adapter and records its weights before and after."""

    def __init__(self, base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...]) -> None:
        self.base, self.modules, self.rows = base, modules, rows
        self.before: Adapter = {}
        self.after: Adapter = {}
        self.asking: set[str] = set()
        self.was_training: list[bool] = []
        self.gradients: list[Adapter] = []

    def run(
        self,
        spec: TrainingSpec = SPEC,
        scales: Mapping[str, float] | None = None,
        *,
        rate: float = RATE,
        on_step: OnStep = nobody,
        seed: int = 0,
        warmup: Mapping[str, float] | None = None,
        warmup_ratio: float = 0.0,
        validation: Sequence[Encoded] = (),
        objective: Objective = next_token_loss,
        refusal_nll: RefusalNll | None = None,
    ) -> Trained:
        ones = dict.fromkeys((module.name for module in self.modules), 1.0)
        first = None if warmup is None else ones | dict(warmup)
        plan = LearningPlan(
            strategy="test", scales=ones | dict(scales or {}), warmup_scales=first, warmup_ratio=warmup_ratio
        )
        with attached(self.base.model, self.modules, spec.lora, seed=seed) as tuned:

            def weights() -> Adapter:
                named = tuned.named_parameters()
                return {name: value.detach().clone() for name, value in named if ".lora_" in name}

            self.before = weights()
            self.was_training.clear()
            self.gradients.clear()

            def reported(step: TrainedStep, total: int) -> None:
                self.was_training.append(tuned.training and self.base.model.training)
                found = {name: value.grad for name, value in tuned.named_parameters()}
                self.gradients.append({name: grad.clone() for name, grad in found.items() if grad is not None})
                on_step(step, total)

            try:
                return train(
                    tuned,
                    self.rows,
                    plan,
                    spec,
                    learning_rate=rate,
                    pad_id=self.base.pad_id,
                    on_step=reported,
                    objective=objective,
                    validation=validation,
                    refusal_nll=refusal_nll,
                )
            finally:
                self.after = weights()
                named = tuned.named_parameters()
                self.asking = {module_of(name) for name, value in named if value.requires_grad}
                self.was_training.append(tuned.training)

    def moved(self) -> dict[str, float]:
        """How far each module's two matrices went."""
        total: dict[str, float] = {}
        for name, value in self.after.items():
            change = float((value - self.before[name]).pow(2).sum())
            total[module_of(name)] = total.get(module_of(name), 0.0) + change
        return {name: math.sqrt(change) for name, change in total.items()}


@pytest.fixture
def bench(base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...]) -> Bench:
    return Bench(base, modules, rows)


def test_training_reduces_the_loss_and_reports_the_run(bench: Bench) -> None:
    reported: list[tuple[TrainedStep, int]] = []
    spec = SPEC.model_copy(update={"steps": 8, "schedule": "linear", "warmup_ratio": 0.25})
    done = bench.run(spec, on_step=lambda step, total: reported.append((step, total)))
    assert done.steps == 8
    assert [point.step for point in done.curve] == list(range(1, 9))
    assert done.curve[-1].loss < done.curve[0].loss - 0.3
    assert reported == [(point, 8) for point in done.curve]
    rates = [point.learning_rate / RATE for point in done.curve]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert done.trainable_parameters == sum(value.numel() for value in bench.before.values())
    assert done.seconds > 0
    assert min(bench.moved().values()) > 0


def test_a_module_with_factor_0_does_not_change_by_a_bit(bench: Bench) -> None:
    frozen = {module.name: 0.0 for module in bench.modules if module.type in ("v", "o")}
    done = bench.run(scales=frozen)
    for name, value in bench.after.items():
        assert torch.equal(value, bench.before[name]) == (module_of(name) in frozen), name
    assert bench.asking == {module.name for module in bench.modules} - set(frozen)
    trained = [name for name in bench.before if module_of(name) not in frozen]
    assert done.trainable_parameters == sum(bench.before[name].numel() for name in trained)


def test_a_module_with_a_smaller_factor_moves_less(bench: Bench) -> None:
    slow = {module.name for module in bench.modules if module.layer >= 3}
    bench.run()
    alike = bench.moved()
    bench.run(scales=dict.fromkeys(slow, 0.1))
    apart = bench.moved()
    # AdamW's first steps are as long as the rate, whatever the gradient: a tenth of the rate, about a tenth of the way.
    for name in alike:
        wanted = 0.1 if name in slow else 1.0
        assert apart[name] / alike[name] == pytest.approx(wanted, rel=0.35), name


def test_the_learning_rate_follows_the_schedule(bench: Bench) -> None:
    bench.run(SPEC.model_copy(update={"steps": 4}))
    constant = bench.moved()
    bench.run(SPEC.model_copy(update={"steps": 4, "schedule": "linear"}))
    linear = bench.moved()  # 1 + 3/4 + 2/4 + 1/4 of the rate, instead of 4 times the whole
    ratios = [linear[name] / constant[name] for name in constant]
    assert sum(ratios) / len(ratios) == pytest.approx(2.5 / 4, abs=0.12)


def test_the_same_seed_gives_the_same_adapter_bit_for_bit(bench: Bench) -> None:
    spec = SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, dropout=0.3)})
    first, one = bench.run(spec), dict(bench.after)
    torch.manual_seed(99)  # what else uses chance does not matter
    second = bench.run(spec)
    assert first.curve == second.curve
    assert all(torch.equal(one[name], bench.after[name]) for name in one)


def test_another_seed_gives_another_order_of_rows(bench: Bench) -> None:
    bench.run()
    one = dict(bench.after)
    bench.run(SPEC.model_copy(update={"seed": 1}))
    assert not any(torch.equal(one[name], bench.after[name]) for name in one if ".lora_B" in name)


def test_global_random_states_are_not_changed(bench: Bench) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    bench.run(SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, dropout=0.3), "steps": 1}))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropout_is_active_only_during_training(bench: Bench) -> None:
    plain = bench.run(SPEC.model_copy(update={"steps": 2}))
    dropped = bench.run(SPEC.model_copy(update={"steps": 2, "lora": LoraSpec(rank=4, alpha=8, dropout=0.5)}))
    assert dropped.curve[0].loss == plain.curve[0].loss  # B is still 0
    assert dropped.curve[1].loss != plain.curve[1].loss
    assert bench.was_training == [True, True, False]


def test_weight_decay_shrinks_weights_without_a_gradient(bench: Bench) -> None:
    bench.run(SPEC.model_copy(update={"steps": 1}))
    plain = sum(float(value.norm()) for name, value in bench.after.items() if ".lora_A" in name)
    bench.run(SPEC.model_copy(update={"steps": 1, "weight_decay": 1.0}), rate=0.1)
    decayed = sum(float(value.norm()) for name, value in bench.after.items() if ".lora_A" in name)
    assert decayed == pytest.approx(0.9 * plain, rel=0.02)


def test_a_nan_loss_ends_the_run(bench: Bench) -> None:
    with pytest.raises(TrainingFailed) as caught:
        bench.run(SPEC.model_copy(update={"steps": 20}), rate=1e30)
    assert caught.value.code == "loss_not_finite"
    assert caught.value.param == "training.learning_rate"
    assert "of 20" in caught.value.message
    assert not bench.base.model.training


def test_a_plan_that_freezes_everything_fails(bench: Bench) -> None:
    with pytest.raises(TrainingFailed) as caught:
        bench.run(scales=dict.fromkeys((module.name for module in bench.modules), 0.0))
    assert caught.value.code == "nothing_to_train"


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_micro_batches_give_the_gradient_of_the_whole_batch(bench: Bench, size: int) -> None:
    spec = SPEC.model_copy(update={"batch_size": 10, "steps": 2, "max_grad_norm": 1e9})
    whole = bench.run(spec)
    wanted = [dict(found) for found in bench.gradients]
    apart = bench.run(spec.model_copy(update={"micro_batch_size": size}))
    assert len({row.trained_tokens for row in bench.rows}) > 2, "rows of one length would prove nothing"
    # From the second step on, weights differ by what rounding made of the first.
    for name, gradient in bench.gradients[0].items():
        assert torch.allclose(gradient, wanted[0][name], rtol=1e-4, atol=1e-6 * float(wanted[0][name].abs().max())), (
            name
        )
    assert [point.loss for point in apart.curve] == pytest.approx([point.loss for point in whole.curve], rel=1e-4)


def test_a_micro_batch_without_trained_tokens_is_skipped(bench: Bench) -> None:
    silent = replace(bench.rows[0], labels=np.full_like(bench.rows[0].labels, IGNORED))
    bench.rows = (silent, *bench.rows[1:4])
    done = bench.run(SPEC.model_copy(update={"micro_batch_size": 1, "steps": 1}))
    bench.rows = bench.rows[1:]
    assert done.curve[0].loss == pytest.approx(bench.run(SPEC.model_copy(update={"steps": 1})).curve[0].loss, rel=1e-5)


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_beside_bfloat16_weights_training_is_coarser_and_learns_as_well(bench: Bench, precision: Precision) -> None:
    spec = SPEC.model_copy(update={"steps": 6, "precision": precision})
    exact = bench.run(spec)
    assert bench.run(spec.model_copy(update={"precision": "float32"})).curve == exact.curve, "the weights decide"
    bench.base = load(TESTBED, torch.device("cpu"), precision="bfloat16")
    coarse = bench.run(spec)
    assert {value.dtype for value in bench.after.values()} == {torch.float32}
    assert coarse.curve != exact.curve
    assert coarse.curve[0].loss == pytest.approx(exact.curve[0].loss, rel=0.02)
    assert coarse.curve[-1].loss == pytest.approx(exact.curve[-1].loss, rel=0.1)


def test_rows_can_be_grouped_by_length(bench: Bench, base: BaseModel) -> None:
    bench.rows = encoded(base, 64)
    padding: list[int] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        padding.append(int((batch.attention_mask == 0).sum()))
        return next_token_loss(model, batch)

    spec = SPEC.model_copy(update={"steps": 16})
    bench.run(spec, objective=watched)
    mixed = sum(padding)
    padding.clear()
    bench.run(spec.model_copy(update={"group_by_length": True}), objective=watched)
    assert sum(padding) < 0.5 * mixed


def test_the_objective_is_minimised(bench: Bench) -> None:
    def twice(model: nn.Module, batch: Batch) -> Tensor:
        return 2 * next_token_loss(model, batch)

    spec = SPEC.model_copy(update={"max_grad_norm": 1e9, "steps": 1})
    plain = bench.run(spec)
    gradients = bench.gradients[0]
    doubled = bench.run(spec, objective=twice)
    assert doubled.curve[0].loss == pytest.approx(2 * plain.curve[0].loss)
    for name, gradient in gradients.items():
        assert torch.allclose(bench.gradients[0][name], 2 * gradient), name


def test_the_validation_loss_equals_the_task_figure_and_does_not_affect_training(bench: Bench, base: BaseModel) -> None:
    held_out = encoded(base, 30)[20:]
    spec = SPEC.model_copy(update={"steps": 5, "lora": LoraSpec(rank=4, alpha=8, dropout=0.3)})
    plain = bench.run(spec)
    alone = dict(bench.after)
    reported: list[TrainedStep] = []
    done = bench.run(
        spec.model_copy(update={"validate_every": 2}),
        validation=held_out,
        on_step=lambda step, _total: reported.append(step),
    )
    assert all(torch.equal(alone[name], value) for name, value in bench.after.items())
    assert [point.loss for point in done.curve] == [point.loss for point in plain.curve]
    assert [point.step for point in done.validation] == [2, 4, 5]
    assert [point.validation_loss for point in reported if point.validation_loss is not None] == [
        point.loss for point in done.validation
    ]
    assert done.best_step == min(done.validation, key=lambda point: point.loss).step
    assert not done.stopped_early
    with attached(base.model, bench.modules, spec.lora, seed=0) as tuned:
        with torch.no_grad():
            for name, value in tuned.named_parameters():
                if name in bench.after:
                    value.copy_(bench.after[name])
        figure = mean_loss(row_losses(base, tuned.eval(), held_out, on_progress=ignore), run="x")
    assert done.validation[-1].loss == pytest.approx(figure.value, rel=1e-5)


def test_refusal_drift_is_measured_and_does_not_affect_training(bench: Bench) -> None:
    spec = SPEC.model_copy(update={"steps": 45, "lora": LoraSpec(rank=4, alpha=8, dropout=0.3)})
    bench.run(spec)
    without = dict(bench.after)
    read: list[bool] = []

    def nll(model: nn.Module) -> float:
        read.append(model.training)
        return 2.0 + len(read)

    done = bench.run(spec, refusal_nll=nll)
    assert all(torch.equal(without[name], bench.after[name]) for name in without)
    steps = [point.step for point in done.security]
    assert (steps[0], steps[-1]) == (0, 45)
    assert steps == sorted(set(steps))
    assert len(steps) <= 22
    assert [point.refusal_drift for point in done.security] == [float(place) for place in range(len(steps))]
    assert not any(read), "it is asked as it will be served"


def test_a_nan_drift_is_left_out_of_the_curve(bench: Bench) -> None:
    values = iter([1.0, math.nan, 1.5, 2.0])
    done = bench.run(refusal_nll=lambda _: next(values))
    assert [(point.step, point.refusal_drift) for point in done.security] == [(0, 0.0), (2, 0.5), (3, 1.0)]


def test_early_stopping_keeps_the_best_weights(bench: Bench, base: BaseModel) -> None:
    held_out = encoded(base, 30)[20:]
    bench.rows = bench.rows[:4]  # learnt by heart, so that what was held out gets worse
    spec = SPEC.model_copy(update={"steps": 60, "validate_every": 2, "patience": 2})
    done = bench.run(spec, validation=held_out, rate=2e-2)
    kept = dict(bench.after)
    losses = [point.loss for point in done.validation]
    best = losses.index(min(losses))
    assert done.stopped_early
    assert done.best_step is not None
    assert len(losses) == best + 1 + 2
    assert done.steps == 2 * len(losses) < 60
    assert done.best_step == 2 * (best + 1)
    assert done.validation[best] == ValidatedStep(step=done.best_step, loss=min(losses))
    bench.run(spec.model_copy(update={"patience": 1000, "validate_every": 1000}), validation=held_out, rate=2e-2)
    last = dict(bench.after)
    assert not any(torch.equal(kept[name], last[name]) for name in kept)
    again = spec.model_copy(update={"steps": 60, "patience": None, "validate_every": None})

    def stop(step: TrainedStep, _total: int) -> None:
        if step.step == done.best_step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(again, rate=2e-2, on_step=stop)
    assert all(torch.equal(kept[name], value) for name, value in bench.after.items())


def test_a_warm_up_phase_has_its_own_factors(bench: Bench) -> None:
    late = {module.name: 0.0 for module in bench.modules if module.type in ("v", "o")}
    early = {module.name: 0.0 for module in bench.modules if module.type == "q"}
    spec = SPEC.model_copy(update={"steps": 5, "weight_decay": 0.5})
    done = bench.run(spec, early, warmup=late, warmup_ratio=0.3)  # two steps of five
    trained = [{module_of(name) for name in found} for found in bench.gradients]
    names = {module.name for module in bench.modules}
    assert trained == [names - set(late)] * 2 + [names - set(early)] * 3
    assert done.trainable_parameters == sum(value.numel() for value in bench.before.values())


def test_a_module_that_is_trained_later_starts_without_optimizer_state(bench: Bench) -> None:
    """The first step of AdamW for a module is as long as the learning rate."""
    late = {module.name: 0.0 for module in bench.modules if module.type == "v"}
    snapshots: list[float] = []
    spec = SPEC.model_copy(update={"steps": 4})
    bench.run(spec, warmup=late, warmup_ratio=0.75)
    moved = [name for name in bench.after if module_of(name) in late and ".lora_B" in name]
    snapshots = [float((bench.after[name] - bench.before[name]).abs().max()) for name in moved]
    assert snapshots == pytest.approx([RATE] * len(moved), rel=1e-3)


def test_a_module_frozen_in_the_second_phase_does_not_change_by_a_bit(bench: Bench) -> None:
    late = {module.name: 0.0 for module in bench.modules if module.layer == 2}
    spec = SPEC.model_copy(update={"weight_decay": 0.1, "steps": 2})
    bench.run(spec)
    wanted = dict(bench.after)
    bench.run(spec.model_copy(update={"steps": 4}), late, warmup={}, warmup_ratio=0.5)
    for name, value in bench.after.items():
        assert torch.equal(value, wanted[name]) == (module_of(name) in late), name


def test_the_backward_pass_ends_at_the_lowest_trained_module(bench: Bench) -> None:
    lowest = 3
    frozen = {module.name: 0.0 for module in bench.modules if module.layer < lowest}
    layers = bench.base.model.get_submodule("model.layers")
    grown: dict[int, bool] = {}

    def watched(number: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_layer: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            grown[number] = output.requires_grad

        return keep

    handles = [layer.register_forward_hook(watched(number)) for number, layer in enumerate(layers.children())]
    try:
        bench.run(SPEC.model_copy(update={"steps": 1}), frozen)
        assert grown == {number: number >= lowest for number in range(len(handles))}
        bench.run(SPEC.model_copy(update={"steps": 1}))
        assert all(grown.values())
    finally:
        for handle in handles:
            handle.remove()


def test_idle_adapters_are_skipped_until_they_are_trained(bench: Bench) -> None:
    idle = {module.name: 0.0 for module in bench.modules if module.type == "v"}
    late = {module.name: 0.0 for module in bench.modules if module.type == "o"}
    early = {module.name: 0.0 for module in bench.modules if module.type == "q"}
    taking: list[set[str]] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, PeftModel)
        taking.append({name for name, layer in lora_layers(model).items() if layer.active_adapters})
        return next_token_loss(model, batch)

    bench.run(SPEC, idle | early, warmup=idle | late, warmup_ratio=0.3, objective=watched)
    names = {module.name for module in bench.modules}
    assert taking == [names - set(idle) - set(late)] + [names - set(idle)] * 2, "q has changed, and is still asked"


def test_all_adapters_are_enabled_after_training(bench: Bench, base: BaseModel) -> None:
    frozen = {module.name: 0.0 for module in bench.modules if module.type in ("v", "gate")}
    spec = SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8)})
    plan = LearningPlan(strategy="test", scales=dict.fromkeys((module.name for module in bench.modules), 1.0) | frozen)
    with attached(base.model, bench.modules, spec.lora, seed=0) as tuned:
        train(tuned, bench.rows, plan, spec, learning_rate=RATE, pad_id=base.pad_id, on_step=nobody)
        assert all(layer.active_adapters == ["default"] for layer in lora_layers(tuned).values())
        asking = {module_of(name) for name, value in tuned.named_parameters() if value.requires_grad}
        assert asking == {module.name for module in bench.modules} - set(frozen)
        whole = logits(tuned)
        disable_idle_adapters(tuned)
        assert torch.equal(logits(tuned), whole)


def test_an_exploding_loss_ends_the_run(bench: Bench) -> None:
    reported: list[float] = []

    def worse_and_worse(model: nn.Module, batch: Batch) -> Tensor:
        return next_token_loss(model, batch) + 10 * len(reported)

    spec = SPEC.model_copy(update={"steps": 40})
    with pytest.raises(TrainingFailed) as caught:
        bench.run(spec, objective=worse_and_worse, on_step=lambda step, _total: reported.append(step.loss))
    assert caught.value.code == "loss_exploded"
    assert caught.value.param == "training.learning_rate"
    assert "Use a learning rate below 0.003" in caught.value.message
    far = [loss > reported[0] + 3 for loss in reported]
    assert far == [False] * (len(reported) - 9) + [True] * 9  # the tenth step in a row is not reported


def test_an_exception_in_on_step_ends_the_run(bench: Bench) -> None:
    reported: list[int] = []

    def stop(step: TrainedStep, _total: int) -> None:
        reported.append(step.step)
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(on_step=stop)
    assert reported == [1, 2]
    assert not bench.base.model.training


@given(st.integers(1, 20_000))
def test_a_curve_has_at_most_500_points_with_both_ends(total: int) -> None:
    kept = [step for step in range(1, total + 1) if is_logged(step, total)]
    assert min(total, 250) <= len(kept) <= 500
    assert (kept[0], kept[-1]) == (1, total)
