"""A probe is a short run like the job's, ends early on request, and leaves the base model unchanged."""

import pytest
import torch
from torch import nn
from typing_extensions import override

from core.lm.adapter import factors, lora_layers
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.schemas.analysis import PROBE_ROWS, SHARED_PROBE_ROWS, SwapPerturbation
from core.schemas.results import TrainedStep
from core.schemas.training import TrainingSpec
from core.training.probe import probe
from tests.core.helpers import encoded, fingerprint, logits

SPEC = TrainingSpec(steps=8, batch_size=2, validate_every=1, patience=1)


class RecordedEvents:
    """The steps that a probe reported, and its calls of `early_stop`."""

    def __init__(self, stop_after: int) -> None:
        self.steps: list[tuple[int, int]] = []
        self.rates: list[float] = []
        self.asked: list[int] = []
        self._stop_after = stop_after

    def step(self, step: TrainedStep, total: int) -> None:
        self.steps.append((step.step, total))
        self.rates.append(step.learning_rate)

    def early_stop(self, model: nn.Module, step: int) -> bool:
        assert any(parameter.requires_grad for parameter in model.parameters())
        self.asked.append(step)
        return step == self._stop_after


def weights(
    base: BaseModel,
    modules: tuple[Module, ...],
    heard: RecordedEvents,
    *,
    steps: int,
    spec: TrainingSpec = SPEC,
    seed: int = 0,
    seeds: int = 1,
    rows: int = 4,
) -> tuple[torch.Tensor, str]:
    """The probe's loss on a row, and a digest of its weights."""
    run = probe(
        base,
        modules,
        encoded(base, rows),
        spec,
        SwapPerturbation(steps=steps, seeds=seeds),
        seed=seed,
        learning_rate=1e-3,
        early_stop=heard.early_stop,
        on_step=heard.step,
    )
    with run as tuned:
        assert not tuned.training
        assert all(parameter.grad is None for parameter in tuned.parameters())
        moved = {name: bool(factors(layer)[1].any()) for name, layer in lora_layers(tuned).items()}
        assert moved == {module.map: True for module in modules}
        return logits(tuned), fingerprint(tuned)


@pytest.mark.parametrize(("steps", "stop_after", "wanted"), [(3, 99, 3), (99, 99, 8), (6, 2, 2), (1, 1, 1)])
def test_a_probe_ends_early_on_request(
    base: BaseModel, modules: tuple[Module, ...], steps: int, stop_after: int, wanted: int
) -> None:
    before, alone = fingerprint(base.model), logits(base.model)
    heard = RecordedEvents(stop_after)
    said, _ = weights(base, modules[-7:], heard, steps=steps)
    assert heard.steps == [(step, min(steps, 8)) for step in range(1, wanted + 1)]
    assert heard.asked == list(range(1, wanted + 1))
    assert heard.rates == sorted(heard.rates), "the rate falls on the way"
    assert max(heard.rates) <= 1e-3
    assert not torch.equal(said, alone)
    assert fingerprint(base.model) == before
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_probe_that_ended_early_equals_one_of_that_length(base: BaseModel, modules: tuple[Module, ...]) -> None:
    few = modules[-7:]
    (_, early), (_, short), (_, other) = (
        weights(base, few, RecordedEvents(2), steps=6),
        weights(base, few, RecordedEvents(99), steps=2),
        weights(base, few, RecordedEvents(99), steps=2, seed=1),
    )
    assert early == short != other


def test_a_probe_is_never_longer_than_the_job(base: BaseModel, modules: tuple[Module, ...]) -> None:
    heard = RecordedEvents(99)
    weights(base, modules[-7:], heard, steps=99, spec=TrainingSpec(epochs=2, batch_size=2))
    assert len(heard.steps) == 4


@pytest.mark.parametrize(("seeds", "most"), [(1, PROBE_ROWS), (2, SHARED_PROBE_ROWS)])
def test_a_step_of_a_probe_has_at_most_so_many_rows(
    base: BaseModel, modules: tuple[Module, ...], seeds: int, most: int
) -> None:
    few, rows = modules[-7:], PROBE_ROWS + 8
    many, cut, fewer = (
        weights(
            base, few, RecordedEvents(99), steps=2, seeds=seeds, rows=rows, spec=TrainingSpec(steps=2, batch_size=size)
        )[1]
        for size in (rows, most, most - 1)
    )
    assert many == cut != fewer


def test_an_exception_in_on_step_ends_the_probe(base: BaseModel, modules: tuple[Module, ...]) -> None:
    before = fingerprint(base.model)

    class Stopping(RecordedEvents):
        @override
        def step(self, step: TrainedStep, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights(base, modules[-7:], Stopping(99), steps=3)
    assert fingerprint(base.model) == before
