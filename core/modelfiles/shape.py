"""The shape of a model by its config.json and the headers of its weights, read without torch.

Not here: whether the files can be used (core.modelfiles.check_files), the modules as the loaded model has them
(core.lm.modules).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

from core.modelfiles.config import text_configs
from core.modelfiles.reading import CONFIG_LIMIT, JsonObject, Problem, read_object
from core.modelfiles.weights import Tensors, embedding_rows, read_weights
from core.schemas.memory import MapShape, ModelShape

_IN_LAYER = re.compile(r"\.\d+\.")
_EXPERT_LEAVES = {"w1": "gate", "w2": "down", "w3": "up"}
"""Names of an expert's maps in older files."""
_BUFFERS = (".inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")
"""Ends of the names of tensors that are computed and not trained."""
_OUTPUT_LAYERS = ("lm_head.weight", "embed_out.weight", "output.weight")


def read_shape(folder: Path) -> ModelShape | Problem:
    """The shape of the model in a folder that `check_files` accepts.

    A problem has the code of the file's problem, or `model_unreadable` if config.json lacks a size.

    Raises:
        OSError: a file cannot be opened.
    """
    config = read_object(folder / "config.json", CONFIG_LIMIT)
    if isinstance(config, Problem):
        return config
    tensors = read_weights(folder)
    if isinstance(tensors, Problem):
        return tensors
    part = list(text_configs(config))[-1]
    layers = _number(part, "num_hidden_layers", "n_layer", "num_layers")
    hidden = _number(part, "hidden_size", "n_embd", "d_model")
    heads = _number(part, "num_attention_heads", "n_head", "num_heads")
    rows = embedding_rows(config, tensors)
    if layers is None or hidden is None or heads is None or rows is None:
        return Problem(
            "model_unreadable",
            "has a config.json without the number of layers, the hidden size, the number of heads or the size of the "
            "vocabulary. Copy the file again from where the model comes from.",
        )
    tied = _is_tied(config, part, tensors)
    return ModelShape(
        parameters=_count_parameters(tensors, tied=tied),
        layers=layers,
        hidden=hidden,
        intermediate=_intermediate(part, hidden),
        heads=heads,
        kv_heads=_number(part, "num_key_value_heads", "num_kv_heads") or heads,
        head_size=_number(part, "head_dim") or max(1, hidden // heads),
        vocabulary=rows,
        context=_number(part, "max_position_embeddings", "n_positions"),
        tied=tied,
        maps=_find_maps(tensors, experts=_experts(part)),
    )


def _number(config: JsonObject, *names: str) -> int | None:
    found = (config.get(name) for name in names)
    return next((each for each in found if isinstance(each, int) and not isinstance(each, bool) and each > 0), None)


def _experts(config: JsonObject) -> int | None:
    return _number(config, "num_local_experts", "num_experts", "n_routed_experts")


def _intermediate(config: JsonObject, hidden: int) -> int:
    whole = _number(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * hidden
    if _experts(config) is None:
        return whole
    used = _number(config, "num_experts_per_tok", "top_k") or 1
    shared = _number(config, "shared_expert_intermediate_size") or 0
    return used * (_number(config, "moe_intermediate_size") or whole) + shared


def _is_tied(config: JsonObject, part: JsonObject, tensors: Tensors) -> bool:
    """Whether the output layer is the embeddings: as configured, or because the files have no output layer."""
    stated = part.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return stated if isinstance(stated, bool) else not any(name.endswith(_OUTPUT_LAYERS) for name in tensors)


def _count_parameters(tensors: Tensors, *, tied: bool) -> int:
    return sum(
        prod(tensor.shape)
        for name, tensor in tensors.items()
        if not name.endswith(_BUFFERS)
        and tensor.dtype.startswith(("F", "BF"))
        and not (tied and name.endswith(_OUTPUT_LAYERS))
    )


def _find_maps(tensors: Tensors, *, experts: int | None) -> tuple[MapShape, ...]:
    found: Counter[tuple[str, int, int, bool]] = Counter()
    for kind, copies, outputs, inputs, bias in _maps(tensors, experts):
        found[kind, outputs, inputs, bias] += copies
    return tuple(
        MapShape(type=kind, outputs=outputs, inputs=inputs, count=count, bias=bias)
        for (kind, outputs, inputs, bias), count in found.items()
    )


def _maps(tensors: Tensors, experts: int | None) -> Iterator[tuple[str, int, int, int, bool]]:
    """Type, copies, outputs, inputs and whether it has a bias, of each map of the decoder layers."""
    for name, tensor in tensors.items():
        if not _IN_LAYER.search(name) or len(tensor.shape) not in (2, 3) or "conv" in name or name.endswith("bias"):
            continue
        path = name.removesuffix(".weight")
        copies, outputs, inputs = (1, *tensor.shape) if len(tensor.shape) == 2 else tensor.shape
        bias = tensors.get(f"{path}.bias")
        if bias is not None and bias.shape == (inputs,) != (outputs,):  # GPT-2 stores its maps transposed
            outputs, inputs = inputs, outputs
        kind = _type(path.split("."), outputs, experts)
        if "experts" in path.split(".") and kind in ("gate", "up"):  # transformers loads both as one map
            if kind == "gate":
                yield "gate_up", copies, 2 * outputs, inputs, bias is not None
            continue
        yield kind, copies, outputs, inputs, bias is not None


def _type(path: Sequence[str], outputs: int, experts: int | None) -> str:
    leaf = path[-1].removesuffix("_proj")
    if leaf in ("gate", "router") and path[-1] == leaf and outputs == experts:
        return "router"
    kind = _EXPERT_LEAVES.get(leaf, leaf)
    return f"shared_{kind}" if any(each.startswith("shared_expert") for each in path[:-1]) else kind
