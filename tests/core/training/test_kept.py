"""The weights that a run ends with: their average, and those of the last measurement within a bound."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from core.errors import TrainingFailed
from core.lm import full
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.schemas.results import SecurityStep
from core.schemas.training import LearningPlan, LoraSpec, Method, TrainingSpec
from core.training.groups import Tuned
from core.training.kept import LAST_WEIGHTS, EndWeights, KeptWeights
from core.training.loop import Trained, train
from tests.core.helpers import encoded

SPEC = TrainingSpec(steps=6, batch_size=4, lora=LoraSpec(rank=4, alpha=8), warmup_ratio=0.0, schedule="constant")
RATES = {"lora": 3e-3, "full": 3e-4}
Weights = dict[str, Tensor]
BOTH = pytest.mark.parametrize("method", ["lora", "full"])


@contextmanager
def opened(base: BaseModel, modules: tuple[Module, ...], method: Method) -> Iterator[Tuned]:
    if method == "full":
        with full.opened(base.model, modules):
            yield base.model
    else:
        with attached(base.model, modules, SPEC.lora, seed=0) as tuned:
            yield tuned


class Bench:
    """Trains the testbed; every step is measured, because there are fewer than 20."""

    def __init__(self, base: BaseModel, modules: tuple[Module, ...], method: Method) -> None:
        self.base, self.modules, self.method = base, modules, method
        self.trained: list[Weights] = []
        """The trained weights before the first step and after each one."""
        self.measured: list[Weights] = []
        """The weights at each measurement of the drift, from step 0."""
        self.end: Weights = {}

    def run(
        self, chosen: EndWeights, drifts: Sequence[float] = (), *, rate: float | None = None, **settings: object
    ) -> Trained:
        """`drifts` are the refusal drifts that are measured, from step 0; 0 after them."""
        self.trained.clear()
        self.measured.clear()
        spec = SPEC.model_copy(update=settings | {"method": self.method})
        plan = LearningPlan(strategy="test", scales=dict.fromkeys((module.name for module in self.modules), 1.0))
        rows = encoded(self.base, 12)
        with opened(self.base, self.modules, self.method) as tuned:

            def weights() -> Weights:
                trained = (each for each in tuned.named_parameters() if self.method == "full" or ".lora_" in each[0])
                return {name: value.detach().clone() for name, value in trained}

            def nll(_model: nn.Module) -> float:
                self.measured.append(weights())
                number = len(self.measured) - 1
                return 2.0 + (drifts[number] if number < len(drifts) else 0.0)

            self.trained.append(weights())
            done = train(
                tuned,
                rows[:8],
                plan,
                spec,
                learning_rate=rate or RATES[self.method],
                pad_id=self.base.pad_id,
                on_step=lambda _step, _total: self.trained.append(weights()),
                validation=rows[8:],
                refusal_nll=nll,
                end_weights=chosen,
            )
            self.end = weights()
        return done


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def averages(trained: Sequence[Weights], decay: float) -> list[Weights]:
    """The moving average after each step, from the initial weights."""
    found = [trained[0]]
    for new in trained[1:]:
        found.append({name: decay * value + (1 - decay) * new[name] for name, value in found[-1].items()})
    return found


def close(one: Weights, other: Weights) -> bool:
    return all(torch.allclose(value, other[name], rtol=1e-5, atol=1e-7) for name, value in one.items())


def test_the_average_begins_at_the_initial_weights_and_follows_by_its_decay() -> None:
    weight = nn.Parameter(torch.tensor([2.0, 8.0]))
    kept = KeptWeights({"w": weight}, decay=0.75)
    seen: list[list[float]] = []
    for new in ([4.0, 8.0], [0.0, 0.0]):
        with torch.no_grad():
            weight.copy_(torch.tensor(new))
        kept.follow()
        with kept.measured():
            seen.append(weight.tolist())
        assert weight.tolist() == new, "training goes on with the trained weights"
    assert seen == [[2.5, 8.0], [1.875, 6.0]]
    kept.finish()
    assert weight.tolist() == [1.875, 6.0]


def test_the_trained_weights_are_back_after_a_measurement_that_fails() -> None:
    weight = nn.Parameter(torch.zeros(1))
    kept = KeptWeights({"w": weight}, decay=0.5)
    weight.data.fill_(8.0)
    kept.follow()
    seen: list[float] = []

    def interrupted() -> None:
        with kept.measured():
            seen.append(weight.item())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [4.0]
    assert weight.item() == 8.0


def test_without_an_average_a_copy_of_the_trained_weights_is_kept() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    kept = KeptWeights({"w": weight}, decay=None)
    assert kept.collect() == {}
    kept.keep()
    weight.data.fill_(2.0)
    kept.keep()
    weight.data.fill_(3.0)
    kept.follow()
    assert {name: value.tolist() for name, value in kept.collect().items()} == {"kept/w": [2.0]}
    kept.finish()
    assert weight.item() == 2.0


def test_average_and_kept_copy_come_back_from_a_checkpoint() -> None:
    weight = nn.Parameter(torch.tensor([0.0]))
    kept = KeptWeights({"w": weight}, decay=0.5)
    weight.data.fill_(8.0)
    kept.follow()
    kept.keep()
    kept.follow()
    stored = {name: value.clone() for name, value in kept.collect().items()}
    assert {name: value.item() for name, value in stored.items()} == {"average/w": 6.0, "kept/w": 4.0}
    other = KeptWeights({"w": weight}, decay=0.5)
    other.restore(stored)
    other.follow()
    assert {name: value.item() for name, value in other.collect().items()} == {"average/w": 7.0, "kept/w": 4.0}


@BOTH
def test_an_averaged_run_trains_as_without_and_measures_and_ends_with_the_average(
    base: BaseModel, modules: tuple[Module, ...], method: Method
) -> None:
    bench = Bench(base, modules, method)
    plain = bench.run(LAST_WEIGHTS, validate_every=2)
    trained = list(bench.trained)
    assert same(bench.end, trained[-1])
    done = bench.run(EndWeights(decay=0.7), validate_every=2)
    assert all(same(one, other) for one, other in zip(bench.trained, trained, strict=True))
    expected = averages(trained, 0.7)
    assert same(bench.measured[0], trained[0])
    assert all(close(one, other) for one, other in zip(bench.measured, expected, strict=True))
    assert not close(expected[-1], trained[-1])
    assert same(bench.end, bench.measured[-1])
    assert [point.loss for point in done.curve] == [point.loss for point in plain.curve]
    assert done.validation[-1].loss > plain.validation[-1].loss, "the average has learnt less by then"
    assert done.end_step == plain.end_step == 6


def test_an_average_without_decay_is_the_trained_weights(base: BaseModel, modules: tuple[Module, ...]) -> None:
    bench = Bench(base, modules, "lora")
    bench.run(EndWeights(decay=0.0))
    assert same(bench.end, bench.trained[-1])


def test_early_stopping_keeps_the_best_average(base: BaseModel, modules: tuple[Module, ...]) -> None:
    bench = Bench(base, modules, "lora")
    done = bench.run(EndWeights(decay=0.5), rate=3e-2, steps=20, validate_every=1, patience=3)
    losses = [point.loss for point in done.validation]
    assert done.best_step == done.end_step == 1 + losses.index(min(losses))
    assert done.stopped_early
    assert same(bench.end, bench.measured[done.end_step])
    assert not close(bench.end, bench.trained[done.end_step])


@BOTH
def test_a_run_ends_with_its_last_safe_weights(base: BaseModel, modules: tuple[Module, ...], method: Method) -> None:
    bench = Bench(base, modules, method)
    done = bench.run(EndWeights(max_refusal_drift=0.5), drifts=[0, 0.4, 0.9, 0.2, 0.5, 0.51, 3.0])
    assert (done.steps, done.end_step, done.stopped_early) == (6, 4, False), "0.5 itself is within, and 0.9 is no end"
    assert same(bench.end, bench.trained[4])
    assert [point.refusal_drift for point in done.security] == pytest.approx([0, 0.4, 0.9, 0.2, 0.5, 0.51, 3.0])


def test_training_ends_after_measurements_above_the_bound(base: BaseModel, modules: tuple[Module, ...]) -> None:
    bench = Bench(base, modules, "lora")
    chosen = EndWeights(max_refusal_drift=0.5, drift_patience=2)
    done = bench.run(chosen, drifts=[0, 0.9, 0.1, 0.9, 0.9, 0.1])
    assert (done.steps, done.end_step, done.stopped_early) == (4, 2, True)
    assert same(bench.end, bench.trained[2])


def test_the_averaged_weights_are_what_is_kept(base: BaseModel, modules: tuple[Module, ...]) -> None:
    bench = Bench(base, modules, "lora")
    done = bench.run(EndWeights(decay=0.6, max_refusal_drift=0.5), drifts=[0, 0, 0, 0.1, 9, 9, 9])
    assert done.end_step == 3
    assert same(bench.end, bench.measured[3])
    assert close(bench.end, averages(bench.trained, 0.6)[3])


@pytest.mark.parametrize("patience", [None, 3])
def test_a_run_that_is_never_within_the_bound_fails(
    base: BaseModel, modules: tuple[Module, ...], patience: int | None
) -> None:
    bench = Bench(base, modules, "lora")
    with pytest.raises(TrainingFailed, match=r"exceeds 0\.5 nats") as caught:
        bench.run(EndWeights(max_refusal_drift=0.5, drift_patience=patience), drifts=[0, *[0.6] * 6])
    assert (caught.value.code, caught.value.param) == ("no_safe_weights", "strategy.safeguards.keep_safe_weights")
    assert len(bench.trained) == 1 + (patience or 6)


def test_a_bound_needs_refusals_and_excludes_early_stopping(base: BaseModel, modules: tuple[Module, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be combined with patience"):
        Bench(base, modules, "lora").run(EndWeights(max_refusal_drift=0.5), validate_every=1, patience=2)


def test_step_0_is_never_safe() -> None:
    chosen = EndWeights(max_refusal_drift=1.0)
    assert not chosen.is_safe(SecurityStep(step=0, refusal_drift=0.0))
    assert chosen.is_safe(SecurityStep(step=1, refusal_drift=1.0))
    assert not chosen.is_safe(SecurityStep(step=2, refusal_drift=1.001))
    assert not LAST_WEIGHTS.is_safe(SecurityStep(step=1, refusal_drift=0.0))
    assert LAST_WEIGHTS.safe_step([]) is None
