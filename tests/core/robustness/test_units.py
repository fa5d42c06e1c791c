"""Units of every kind contain each module once, in the order of the model."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lm.modules import Module
from core.robustness.units import Unit, module_names, units
from core.schemas.analysis import UnitKind

TYPES = ("q", "v", "down")


def modules(layers: int) -> list[Module]:
    return [
        Module(name=f"layers.{layer}.{kind}", layer=layer, type=kind, parameters=10 + layer)
        for layer in range(layers)
        for kind in TYPES
    ]


@given(st.integers(1, 40), st.integers(1, 64), st.sampled_from(get_args(UnitKind)))
def test_each_module_is_in_one_unit(layers: int, bands: int, kind: UnitKind) -> None:
    whole = modules(layers)
    found = units(whole, kind, bands)
    members = [module for unit in found for module in unit.members]
    assert sorted(members, key=whole.index) == whole
    assert len({unit.name for unit in found}) == len(found)
    assert {unit.kind for unit in found} == {kind}
    few = min(bands, layers)
    assert len(found) == {"module": 3 * layers, "circuit": 3, "type": 3, "band": few, "type_band": 3 * few}[kind]
    assert module_names(found) == {module.name for module in whole}


@given(st.integers(1, 40), st.integers(1, 64))
def test_bands_are_of_nearly_equal_height(layers: int, bands: int) -> None:
    heights = [len({module.layer for module in unit.members}) for unit in units(modules(layers), "band", bands)]
    assert sum(heights) == layers
    assert max(heights) - min(heights) <= 1


def test_units_have_names_and_sizes() -> None:
    found = units(modules(5), "type_band", 3)
    assert [unit.name for unit in found] == [
        f"{kind}, {band}" for band in ("layer 0", "layers 1-2", "layers 3-4") for kind in TYPES
    ]
    assert found[3].names == {"layers.1.q", "layers.2.q"}
    assert found[3].parameters == 11 + 12


def test_a_circuit_is_what_acts_as_one() -> None:
    types = ("q", "k", "v", "o", "gate", "up", "down", "shared_up", "router", "in_proj")
    whole = [Module(f"{layer}.{kind}", layer=layer, type=kind, parameters=1) for layer in (0, 1) for kind in types]
    found = {unit.name: {module.type for module in unit.members} for unit in units(whole, "circuit", 3)}
    assert found == {
        "qk": {"q", "k"},
        "ov": {"v", "o"},
        "mlp": {"gate", "up", "down", "shared_up"},
        "router": {"router"},
        "in_proj": {"in_proj"},
    }


def test_units_with_the_same_members_are_equal() -> None:
    assert set(units(modules(3), "type", 2)) == set(units(modules(3), "type", 3))


@pytest.mark.parametrize("kind", ["type", "band"])
def test_layers_that_are_not_analysed_are_in_no_band(kind: UnitKind) -> None:
    some = [module for module in modules(6) if module.layer in (2, 5)]
    assert [unit.name for unit in units(some, "band", 2)] == ["layer 2", "layer 5"]
    assert module_names(units(some, kind, 2)) == {module.name for module in some}


def test_nothing_has_no_name() -> None:
    assert module_names([]) == frozenset()
    assert units([], "module", 3) == units([], "band", 3) == ()
    assert Unit("type", "q", ()).parameters == 0
