"""Finds a model's modules: the linear maps of each decoder layer, from the model itself, not from a list of models.

A module (l, t) is the map of type t in layer l (arXiv 2410.04524). Its type comes from a well-known name (`q_proj` is
`q`), or from its place in its block: the output of an attention is `o`, and a map to more numbers and back are `up` and
`down`. Fused maps are split by their rows (core.lm.layout): Phi's `qkv_proj` is the modules `...qkv_proj[q]`,
`...qkv_proj[k]` and `...qkv_proj[v]`. A map of unknown type keeps its own name and stays whole.

The weights of all experts of a layer are one module for each of gate, up and down: single experts would be thousands,
most of them unused by a given prompt, and their map would be noise. A layer's router has the type `router`; the maps
beside the experts are `shared_gate`, `shared_up` and `shared_down`.
An adapter on the model changes nothing. Embeddings and heads are not modules.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InvalidModel
from core.lm.layout import Parts, Rows, attention_parts, gate_parts

ROUTER = "router"
_SHORT = {f"{kind}_proj": kind for kind in ("q", "k", "v", "o", "gate", "up", "down")}


@dataclass(frozen=True)
class Module:
    """One linear map of one decoder layer, or a part of it."""

    name: str
    """Unique name: the map's, followed by the part's in brackets if the map has several."""
    layer: int
    type: str
    parameters: int
    rows: Rows | None = None
    """The outputs of the map that belong to this part; None means all."""
    axis: int = 0
    """Dimension of the weight that counts the outputs."""
    bare: bool = False
    """Whether the map is a parameter itself, as with experts, and not a submodule with a `weight`."""

    @property
    def map(self) -> str:
        """Name of the map, which parts share."""
        return self.name.partition("[")[0]

    @property
    def weight(self) -> str:
        """Name of the parameter."""
        return self.map if self.bare else f"{self.map}.weight"

    def indexes(self, device: torch.device | None = None) -> Tensor | None:
        """The part's rows, one by one; None means all."""
        if self.rows is None:
            return None
        return torch.tensor([row for run in self.rows for row in run], device=device)


def find_modules(model: PreTrainedModel) -> tuple[Module, ...]:
    """All modules of a base model, with or without an adapter, in the model's order.

    Raises:
        InvalidModel: code `no_modules`; there is no stack of equal decoder layers with linear maps.
    """
    name, layers = decoder_layers(model)
    split = _Splitter(model)
    found = tuple(
        module for index, layer in enumerate(layers) for module in _of_layer(f"{name}.{index}", index, layer, split)
    )
    if not found:
        raise _nothing_found(model)
    return found


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the stack of decoder layers: the list of equal, composite parts with the most weights.

    Raises:
        InvalidModel: code `no_modules`.
    """
    stacks = [
        (name, child)
        for name, child in model.named_modules()
        if isinstance(child, nn.ModuleList)
        and len({type(layer) for layer in child}) == 1
        and any(True for _ in child[0].children())
    ]
    if not stacks:
        raise _nothing_found(model)
    return max(stacks, key=lambda stack: sum(each.numel() for each in stack[1].parameters()))


def weight_of(model: nn.Module, module: Module) -> nn.Parameter:
    """The whole weight of the module's map, with or without an adapter on the model."""
    path, _, leaf = module.weight.rpartition(".")
    weight = getattr(_below(model.get_submodule(path)), leaf)
    if not isinstance(weight, nn.Parameter):
        raise TypeError(f"{module.name} has no weight")
    return weight


def has_experts(model: nn.Module) -> bool:
    """Whether one parameter contains the weights of several experts."""
    return any(_of_experts(part) for part in model.modules())


def own_parameters(model: nn.Module, module: Module) -> list[tuple[nn.Parameter, int]]:
    """The map's weight and its bias, if it has one, each with the dimension that counts the outputs."""
    weight = weight_of(model, module)
    bias = None if module.bare else getattr(_below(model.get_submodule(module.map)), "bias", None)
    return [(weight, module.axis)] + ([(bias, 0)] if isinstance(bias, nn.Parameter) else [])


def by_map(modules: Sequence[Module]) -> dict[str, list[Module]]:
    """The modules of each map, by the map's name."""
    found: dict[str, list[Module]] = {}
    for module in modules:
        found.setdefault(module.map, []).append(module)
    return found


@dataclass(frozen=True)
class _Map:
    """A map in its layer."""

    path: str
    block: nn.Module
    part: nn.Module
    outputs: int
    inputs: int
    copies: int = 1
    axis: int = 0
    bare: bool = False
    type: str | None = None
    parts: Parts | None = None

    @property
    def leaf(self) -> str:
        return _leaf(self.path)

    @property
    def types(self) -> dict[str, Rows | None]:
        """Its known types, each with its rows, or its own name as its type."""
        return {self.type or self.leaf: None} if self.parts is None else dict(self.parts)


class _Splitter:
    """Detects the parts of a fused map once, and not again in every layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.hidden: int | None = getattr(model.config.get_text_config(), "hidden_size", None)
        self._known: dict[tuple[str, int], Parts | None] = {}

    def parts(self, each: _Map, other: _Map) -> Parts | None:
        """The parts of a map that has more outputs than the other map of its block has inputs."""
        key = each.path, each.outputs
        if key not in self._known:
            fused = each.block, each.part, each.outputs
            found = gate_parts(self._model, *fused) if each.outputs == 2 * other.inputs else None
            self._known[key] = found or attention_parts(self._model, *fused)
        return self._known[key]


def _of_layer(prefix: str, index: int, layer: nn.Module, split: _Splitter) -> Iterator[Module]:
    maps = list(_maps(layer, ""))
    blocks: dict[int, list[_Map]] = {}
    for each in maps:
        blocks.setdefault(id(each.block), []).append(each)
    named = {path: kinds for block in blocks.values() for path, kinds in _types(block, split).items()}
    count = Counter(kind for kinds in named.values() for kind in kinds)
    for each in maps:
        for kind, rows in named[each.path].items():
            name = f"{prefix}.{each.path}"
            size = each.outputs if rows is None else sum(len(run) for run in rows)
            yield Module(
                name=name if rows is None else f"{name}[{kind}]",
                layer=index,
                type=kind if count[kind] == 1 else _plain(each.path, kind, rows),
                parameters=size * each.inputs * each.copies,
                rows=rows,
                axis=each.axis,
                bare=each.bare,
            )


def _types(block: list[_Map], split: _Splitter) -> dict[str, dict[str, Rows | None]]:
    """The types of a block's maps by path, each with its rows."""
    found = {each.path: each.types for each in block}
    open_ones = [each for each in block if each.type is None and each.parts is None]
    known = {kind for kinds in found.values() for kind in kinds}
    ways_out = [each for each in open_ones if each.outputs == split.hidden]
    if {"q", "k", "v"} <= known and "o" not in known and len(ways_out) == 1:
        found[ways_out[0].path] = {"o": None}
    elif open_ones and len(block) == 2:
        found |= _pair(block, split)
    return found


def _pair(block: list[_Map], split: _Splitter) -> dict[str, dict[str, Rows | None]]:
    """A map into a block and one out of it, in any order; empty if they cannot be distinguished."""
    ways_in = [each for each in block if each.inputs == split.hidden != each.outputs]
    ways_out = [each for each in block if each.outputs == split.hidden]
    match ways_in, ways_out:
        case [way_in], [way_out] if way_in.type is None and way_out.type in (None, "o", "down"):
            if way_in.outputs == way_out.inputs:
                parts: dict[str, Rows | None] = {"up": None} if way_in.outputs > way_in.inputs else {}
            else:
                parts = dict(split.parts(way_in, way_out) or {})
            out = "down" if "up" in parts else "o"
            return {way_in.path: parts, way_out.path: {way_out.type or out: None}} if parts else {}
        case _:
            return {}


def _maps(part: nn.Module, prefix: str) -> Iterator[_Map]:
    """Linear maps in the order of the model, with or without an adapter."""
    children = {name: (child, _below(child)) for name, child in part.named_children()}
    experts = next((len(weights[0][1]) for _, below in children.values() if (weights := _of_experts(below))), None)
    for name, (child, below) in children.items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(below, nn.Linear | Conv1D):
            yield _linear(path, part, child, below, experts)
        elif experts is not None and _is_router(below, experts):
            outputs, inputs = below.get_parameter("weight").shape
            yield _Map(path, part, child, outputs, inputs, type=ROUTER)
        elif weights := _of_experts(below):
            yield from (_experts(path, part, below, name, weight) for name, weight in weights)
        elif experts is None:
            yield from _maps(below, path)
        else:
            yield from (replace(each, type=f"shared_{each.type or each.leaf}") for each in _maps(below, path))


def _linear(path: str, block: nn.Module, child: nn.Module, below: nn.Linear | Conv1D, experts: int | None) -> _Map:
    if isinstance(below, Conv1D):
        inputs, outputs = below.weight.shape
        return _Map(path, block, child, outputs, inputs, axis=1, type=_SHORT.get(_leaf(path)))
    known = ROUTER if below.out_features == experts else _SHORT.get(_leaf(path))
    return _Map(path, block, child, below.out_features, below.in_features, type=known)


def _experts(path: str, block: nn.Module, below: nn.Module, name: str, weight: nn.Parameter) -> _Map:
    # transformers describes the layout of experts in attributes of the part.
    transposed, joined = getattr(below, "is_transposed", None), getattr(below, "is_concatenated", None)
    count, outputs, inputs = weight.shape if not transposed else weight.transpose(1, 2).shape
    parts: Parts | None = None
    if name == "gate_up_proj" and isinstance(transposed, bool) and isinstance(joined, bool):
        half = outputs // 2
        gate, up = (range(half), range(half, outputs)) if joined else (range(0, outputs, 2), range(1, outputs, 2))
        parts = {"gate": (gate,), "up": (up,)}
    axis = 2 if transposed else 1
    return _Map(
        f"{path}.{name}",
        block,
        below,
        outputs,
        inputs,
        count,
        axis,
        bare=True,
        type=_SHORT.get(name, name),
        parts=parts,
    )


def _of_experts(part: nn.Module) -> list[tuple[str, nn.Parameter]]:
    if isinstance(part, nn.Conv1d):  # its kernel has three dimensions too
        return []
    return [(name, weight) for name, weight in part.named_parameters(recurse=False) if weight.ndim == 3]


def _is_router(part: nn.Module, experts: int) -> bool:
    weight = dict(part.named_parameters(recurse=False)).get("weight")
    return weight is not None and weight.ndim == 2 and len(weight) == experts


def _below(part: nn.Module) -> nn.Module:
    return part.get_base_layer() if isinstance(part, LoraLayer) else part


def _plain(path: str, kind: str, rows: Rows | None) -> str:
    """A distinct type for a map that shares its type with another map of the layer."""
    whole = path.replace(".", "_")
    return whole if rows is None else f"{whole}_{kind}"


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _nothing_found(model: nn.Module) -> InvalidModel:
    return InvalidModel(
        f"{type(model).__name__} has no decoder layers with linear maps that securetune knows how to find.",
        code="no_modules",
        param="base_model",
    )
