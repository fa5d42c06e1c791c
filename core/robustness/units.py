"""Units that are perturbed together: single modules, or groups by circuit, type, depth band, or type within a band.

Modules can replace each other, so perturbing one at a time underestimates a group. Groups are measured jointly. The
modules of a circuit act as one: attention scores depend on q and k only through their product, and so do the moved
values on v and o (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits); the maps of an MLP multiply
as well.
Pure: names only. Not here: perturbing (perturb), measuring (probe_activations).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from core.lm.modules import Module
from core.schemas.analysis import CIRCUITS, UnitKind

_NAMES: dict[UnitKind, Callable[[Module, str], str]] = {
    "module": lambda module, _band: module.name,
    "circuit": lambda module, _band: CIRCUITS.get(module.type, module.type),
    "type": lambda module, _band: module.type,
    "band": lambda _module, band: band,
    "type_band": lambda module, band: f"{module.type}, {band}",
}
"""The name of a module's unit, from the module and its depth band, for each kind of unit."""


@dataclass(frozen=True)
class Unit:
    """Modules that are perturbed together. `name` is unique within the kind, such as `qk`, `q` or `layers 0-1`."""

    kind: UnitKind
    name: str
    members: tuple[Module, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names of its modules."""
        return frozenset(module.name for module in self.members)

    @property
    def parameters(self) -> int:
        """Number of parameters of all members."""
        return sum(module.parameters for module in self.members)


def units(modules: Sequence[Module], kind: UnitKind, bands: int) -> tuple[Unit, ...]:
    """All units of a kind, in model order. Each module is in exactly one of them.

    `bands` is the number of depth bands of (nearly) equal height, at most one for each layer.
    """
    band = _bands(modules, bands)
    found: dict[str, list[Module]] = {}
    for module in modules:
        found.setdefault(_NAMES[kind](module, band[module.layer]), []).append(module)
    return tuple(Unit(kind, name, tuple(members)) for name, members in found.items())


def module_names(chosen: Iterable[Unit]) -> frozenset[str]:
    """The names of all modules of these units."""
    return frozenset(name for unit in chosen for name in unit.names)


def _bands(modules: Sequence[Module], bands: int) -> dict[int, str]:
    layers = sorted({module.layer for module in modules})
    count = min(bands, len(layers))
    names: dict[int, str] = {}
    for index in range(count):
        part = layers[index * len(layers) // count : (index + 1) * len(layers) // count]
        name = f"layer {part[0]}" if len(part) == 1 else f"layers {part[0]}-{part[-1]}"
        names.update(dict.fromkeys(part, name))
    return names
