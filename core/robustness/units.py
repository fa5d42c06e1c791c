"""What is moved together: single modules, or groups of them by circuit, type, depth band, or type within a band.

Modules stand in for each other, so moving one at a time understates what a group does; groups are read jointly. A
circuit is what acts as one: attention scores hang on q and k by their product alone, what is moved on v and o likewise
(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits), and the maps of the MLP multiply too.
Pure: names only. Not here: moving (perturb), measuring (readings).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from core.lm.modules import Module
from core.schemas.analysis import UnitKind

_CIRCUITS = {"q": "qk", "k": "qk", "v": "ov", "o": "ov"} | dict.fromkeys(
    ("gate", "up", "down", "shared_gate", "shared_up", "shared_down"), "mlp"
)
"""By type; any other type, such as an experts' router, is a circuit of its own."""


@dataclass(frozen=True)
class Unit:
    """Modules that are moved together. `name` is unique within its kind, such as `qk`, `q`, `layers 0-1`."""

    kind: UnitKind
    name: str
    members: tuple[Module, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names of its modules."""
        return frozenset(module.name for module in self.members)

    @property
    def parameters(self) -> int:
        """Size of its weights together."""
        return sum(module.parameters for module in self.members)


def units(modules: Sequence[Module], kind: UnitKind, bands: int) -> tuple[Unit, ...]:
    """All units of a kind, in the model's order; together they hold each module once.

    Args:
        modules: the modules of the model that are analysed.
        kind: what belongs together.
        bands: number of depth bands of (nearly) equal height, for the kinds that need them; never more than layers.
    """
    match kind:
        case "module":
            return _grouped(kind, modules, lambda module: module.name)
        case "circuit":
            return _grouped(kind, modules, lambda module: _CIRCUITS.get(module.type, module.type))
        case "type":
            return _grouped(kind, modules, lambda module: module.type)
        case "band":
            band = _bands(modules, bands)
            return _grouped(kind, modules, lambda module: band[module.layer])
        case "type_band":
            band = _bands(modules, bands)
            return _grouped(kind, modules, lambda module: f"{module.type}, {band[module.layer]}")
        case _:
            assert_never(kind)


def names_of(chosen: Iterable[Unit]) -> frozenset[str]:
    """Names of all their modules."""
    return frozenset(name for unit in chosen for name in unit.names)


def _grouped(kind: UnitKind, modules: Sequence[Module], key: Callable[[Module], str]) -> tuple[Unit, ...]:
    found: dict[str, list[Module]] = {}
    for module in modules:
        found.setdefault(key(module), []).append(module)
    return tuple(Unit(kind, name, tuple(members)) for name, members in found.items())


def _bands(modules: Sequence[Module], bands: int) -> dict[int, str]:
    layers = sorted({module.layer for module in modules})
    count = min(bands, len(layers))
    names: dict[int, str] = {}
    for index in range(count):
        part = layers[index * len(layers) // count : (index + 1) * len(layers) // count]
        name = f"layer {part[0]}" if len(part) == 1 else f"layers {part[0]}-{part[-1]}"
        names.update(dict.fromkeys(part, name))
    return names
