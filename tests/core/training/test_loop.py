"""The loop trains each module at its own rate, the same way every time, and stops when it must."""

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.data.template import Encoded
from core.errors import TrainingFailed
from core.lm.adapter import attached, module_of
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.spec.results import TrainedStep
from core.spec.training import LearningPlan, LoraSpec, TrainingSpec
from core.training.loop import OnStep, Trained, logged, total_steps, train
from tests.core.helpers import encoded

SPEC = TrainingSpec(steps=3, batch_size=4, lora=LoraSpec(rank=4, alpha=8), warmup_share=0.0, schedule="constant")
RATE = 3e-3
Adapter = dict[str, Tensor]


def nobody(_step: TrainedStep, _total: int) -> None:
    """Listens to no step."""


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> tuple[Encoded, ...]:
    return encoded(base, 10)


class Bench:
    """Trains a fresh adapter and keeps what it was before and after."""

    def __init__(self, base: BaseModel, modules: tuple[Module, ...], rows: tuple[Encoded, ...]) -> None:
        self.base, self.modules, self.rows = base, modules, rows
        self.before: Adapter = {}
        self.after: Adapter = {}
        self.asking: set[str] = set()
        self.was_training: list[bool] = []

    def run(
        self,
        spec: TrainingSpec = SPEC,
        scales: Mapping[str, float] | None = None,
        *,
        rate: float = RATE,
        on_step: OnStep = nobody,
        seed: int = 0,
    ) -> Trained:
        whole = dict.fromkeys((module.name for module in self.modules), 1.0) | dict(scales or {})
        with attached(self.base.model, self.modules, spec.lora, seed=seed) as tuned:

            def weights() -> Adapter:
                named = tuned.named_parameters()
                return {name: value.detach().clone() for name, value in named if ".lora_" in name}

            self.before = weights()
            self.was_training.clear()

            def told(step: TrainedStep, total: int) -> None:
                self.was_training.append(tuned.training and self.base.model.training)
                on_step(step, total)

            try:
                return train(
                    tuned,
                    self.rows,
                    LearningPlan(strategy="test", scales=whole),
                    spec,
                    learning_rate=rate,
                    pad_id=self.base.pad_id,
                    on_step=told,
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


def test_training_learns_and_says_what_it_did(bench: Bench) -> None:
    told: list[tuple[TrainedStep, int]] = []
    spec = SPEC.model_copy(update={"steps": 8, "schedule": "linear", "warmup_share": 0.25})
    done = bench.run(spec, on_step=lambda step, total: told.append((step, total)))
    assert done.steps == 8
    assert [point.step for point in done.curve] == list(range(1, 9))
    assert done.curve[-1].loss < done.curve[0].loss - 0.3
    assert told == [(point, 8) for point in done.curve]
    rates = [point.learning_rate / RATE for point in done.curve]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert done.trainable_parameters == sum(value.numel() for value in bench.before.values())
    assert done.seconds > 0
    assert min(bench.moved().values()) > 0


def test_a_module_of_factor_0_stays_to_the_bit(bench: Bench) -> None:
    frozen = {module.name: 0.0 for module in bench.modules if module.type in ("v", "o")}
    done = bench.run(scales=frozen)
    for name, value in bench.after.items():
        assert torch.equal(value, bench.before[name]) == (module_of(name) in frozen), name
    assert bench.asking == {module.name for module in bench.modules} - set(frozen)
    trained = [name for name in bench.before if module_of(name) not in frozen]
    assert done.trainable_parameters == sum(bench.before[name].numel() for name in trained)


def test_a_module_of_a_smaller_factor_moves_less(bench: Bench) -> None:
    slow = {module.name for module in bench.modules if module.layer >= 3}
    bench.run()
    alike = bench.moved()
    bench.run(scales=dict.fromkeys(slow, 0.1))
    apart = bench.moved()
    # AdamW's first steps are as long as the rate, whatever the gradient: a tenth of the rate, about a tenth of the way.
    for name in alike:
        wanted = 0.1 if name in slow else 1.0
        assert apart[name] / alike[name] == pytest.approx(wanted, rel=0.35), name


def test_the_schedule_is_what_is_trained_with(bench: Bench) -> None:
    bench.run(SPEC.model_copy(update={"steps": 4}))
    constant = bench.moved()
    bench.run(SPEC.model_copy(update={"steps": 4, "schedule": "linear"}))
    linear = bench.moved()  # 1 + 3/4 + 2/4 + 1/4 of the rate, instead of 4 times the whole
    ratios = [linear[name] / constant[name] for name in constant]
    assert sum(ratios) / len(ratios) == pytest.approx(2.5 / 4, abs=0.12)


def test_the_same_seed_gives_the_same_adapter_to_the_bit(bench: Bench) -> None:
    spec = SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, dropout=0.3)})
    first, one = bench.run(spec), dict(bench.after)
    torch.manual_seed(99)  # what else uses chance does not matter
    second = bench.run(spec)
    assert first.curve == second.curve
    assert all(torch.equal(one[name], bench.after[name]) for name in one)


def test_another_seed_sees_other_rows(bench: Bench) -> None:
    bench.run()
    one = dict(bench.after)
    bench.run(SPEC.model_copy(update={"seed": 1}))
    assert not any(torch.equal(one[name], bench.after[name]) for name in one if ".lora_B" in name)


def test_chance_outside_is_not_disturbed(bench: Bench) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    bench.run(SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, dropout=0.3), "steps": 1}))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropout_is_on_while_training_only(bench: Bench) -> None:
    plain = bench.run(SPEC.model_copy(update={"steps": 2}))
    dropped = bench.run(SPEC.model_copy(update={"steps": 2, "lora": LoraSpec(rank=4, alpha=8, dropout=0.5)}))
    assert dropped.curve[0].loss == plain.curve[0].loss  # B is still 0
    assert dropped.curve[1].loss != plain.curve[1].loss
    assert bench.was_training == [True, True, False]


def test_weight_decay_shrinks_what_gets_no_gradient(bench: Bench) -> None:
    bench.run(SPEC.model_copy(update={"steps": 1}))
    plain = sum(float(value.norm()) for name, value in bench.after.items() if ".lora_A" in name)
    bench.run(SPEC.model_copy(update={"steps": 1, "weight_decay": 1.0}), rate=0.1)
    decayed = sum(float(value.norm()) for name, value in bench.after.items() if ".lora_A" in name)
    assert decayed == pytest.approx(0.9 * plain, rel=0.02)


def test_a_loss_that_is_no_number_ends_the_run(bench: Bench) -> None:
    with pytest.raises(TrainingFailed) as caught:
        bench.run(SPEC.model_copy(update={"steps": 20}), rate=1e30)
    assert caught.value.code == "loss_not_finite"
    assert caught.value.param == "training.learning_rate"
    assert "of 20" in caught.value.message
    assert not bench.base.model.training


def test_with_everything_frozen_there_is_nothing_to_train(bench: Bench) -> None:
    with pytest.raises(TrainingFailed) as caught:
        bench.run(scales=dict.fromkeys((module.name for module in bench.modules), 0.0))
    assert caught.value.code == "nothing_to_train"


def test_a_stop_ends_it_at_that_step(bench: Bench) -> None:
    told: list[int] = []

    def stop(step: TrainedStep, _total: int) -> None:
        told.append(step.step)
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(on_step=stop)
    assert told == [1, 2]
    assert not bench.base.model.training


def test_epochs_are_passes_over_all_rows() -> None:
    def steps(rows: int, **spec: float) -> int:
        return total_steps(TrainingSpec.model_validate({"batch_size": 16} | spec), rows)

    assert steps(64) == 12
    assert steps(64, epochs=1) == 4
    assert steps(64, epochs=0.5) == 2
    assert steps(17, epochs=3) == 6  # 16 rows and 1 row, three times
    assert steps(1, epochs=0.01) == 1
    assert steps(64, steps=7) == 7


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 5))
def test_whole_epochs_end_with_their_last_batch(rows: int, batch_size: int, epochs: int) -> None:
    spec = TrainingSpec(batch_size=batch_size, epochs=epochs)
    assert total_steps(spec, rows) == epochs * math.ceil(rows / batch_size)


@given(st.integers(1, 20_000))
def test_a_curve_has_at_most_500_points_with_both_ends(total: int) -> None:
    kept = [step for step in range(1, total + 1) if logged(step, total)]
    assert min(total, 250) <= len(kept) <= 500
    assert (kept[0], kept[-1]) == (1, total)
