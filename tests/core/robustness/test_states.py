"""Readings that start from kept hidden states are those of whole passes, however little may be kept."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from torch import nn

from core.data.template import Encoded
from core.lm.load import BaseModel
from core.lm.modules import decoder_layers, find_modules
from core.lm.stack import stack_of
from core.robustness.perturb import Moved, Noise, Swap
from core.robustness.readings import Reading, Readings
from core.robustness.states import StateReader
from tests.core.helpers import FAMILIES, fingerprint, tiny_base
from tests.core.robustness.conftest import changed, readings_of


def sets(layers: dict[str, int]) -> Iterator[frozenset[str]]:
    """Nothing, everything, single modules, everything but these, a type, a layer."""
    everything = frozenset(layers)
    yield from (frozenset(), everything)
    for name in list(layers)[::3]:
        yield from (frozenset({name}), everything - {name})
    yield frozenset(name for name in layers if "o_proj" in name)
    yield frozenset(name for name in layers if layers[name] == max(layers.values()))


def alike(one: Reading, other: Reading) -> bool:
    found = (one.feature_drift, one.refusal_nll, one.task_loss)
    return found == pytest.approx((other.feature_drift, other.refusal_nll, other.task_loss), abs=1e-4)


def whole_pass(readings: Readings, moved: Moved, names: frozenset[str]) -> Reading:
    with moved.moved(names):
        return readings.read(moved.model)


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_states_read_as_whole_passes_do(base: BaseModel, rows: tuple[Encoded, ...], family: str) -> None:
    here = tiny_base(family, base)
    before, modules = fingerprint(here.model), find_modules(here.model)
    layers = {module.name: module.layer for module in modules}
    readings = readings_of(here, rows)
    with changed(here, 0.3) as tuned:
        check(readings, Swap(tuned), layers)
    check(readings, Noise(here.model, modules, relative_norm=0.5, seed=0), layers)
    assert fingerprint(here.model) == before


def check(readings: Readings, moved: Moved, layers: dict[str, int]) -> None:
    with moved.moved(()):
        pass  # a stack is found whether updates are on or off
    reader = StateReader(readings, moved, layers, memory_mb=64)
    assert [state.names for state in reader.kept] == ([frozenset(), frozenset(layers)] if stack_of(moved.model) else [])
    found = {names: reader.read(names) for names in sets(layers)}
    for names, reading in found.items():
        assert alike(reading, whole_pass(readings, moved, names)), sorted(names)
    assert len(set(found.values())) > len(found) / 2, "nothing was moved"


@pytest.mark.parametrize("memory_mb", [64, 2, 1, 0.5, 0.25, 0])
@pytest.mark.parametrize("layer", [1, 3, 6])
def test_no_more_is_kept_than_may_be_and_the_figures_stay(
    base: BaseModel, readings: Readings, memory_mb: float, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = readings.direction.quality.model_copy(update={"layer": layer})
    monkeypatch.setattr(readings, "direction", replace(readings.direction, quality=quality))
    layers = {module.name: module.layer for module in find_modules(base.model)}
    noise = Noise(base.model, find_modules(base.model), relative_norm=0.5, seed=0)
    reader = StateReader(readings, noise, layers, memory_mb=memory_mb)
    kept = [len(batch.inputs) for state in reader.kept for batch in state.batches]
    assert sum(batch.bytes for state in reader.kept for batch in state.batches) <= memory_mb * 2**20
    assert set(kept) == {64: {7}, 2: {4}, 1: {2}, 0.5: {1}, 0.25: set(), 0: set()}[memory_mb]
    for names in list(sets(layers))[::4]:
        assert alike(reader.read(names), whole_pass(readings, noise, names)), sorted(names)


def test_masks_count_as_memory(base: BaseModel, readings: Readings) -> None:
    layers = {module.name: module.layer for module in find_modules(base.model)}
    noise = Noise(base.model, find_modules(base.model), relative_norm=0.5, seed=0)
    (batch, *_) = StateReader(readings, noise, layers, memory_mb=64).kept[0].batches
    rows, positions = batch.chunk.input_ids.shape
    states = 7 * rows * positions * 128 * 4
    assert batch.bytes >= states + rows * positions * positions  # a mask of a byte for each pair of positions


def test_only_layers_above_the_change_are_run(base: BaseModel, readings: Readings) -> None:
    modules = find_modules(base.model)
    noise = Noise(base.model, modules, relative_norm=0.5, seed=0)
    reader = StateReader(readings, noise, {module.name: module.layer for module in modules}, memory_mb=64)
    run: list[nn.Module] = []

    def note(layer: nn.Module, _args: object, _output: object) -> None:
        run.append(layer)

    layers = list(decoder_layers(base.model)[1])
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        for module in modules[::5]:
            run.clear()
            reader.read({module.name})
            assert run == layers[module.layer :] * len(readings.chunks)
        run.clear()
        reader.read(())
        assert run == []
    finally:
        for handle in handles:
            handle.remove()
