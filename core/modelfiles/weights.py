"""The weights of a model by their headers: which files are loaded, whether all are there, and their shapes.

Not here: values (core.lm.weights), the format's header (core.modelfiles.reading).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from core.modelfiles.config import quantized, text_configs
from core.modelfiles.reading import TOKENIZER_LIMIT, JsonObject, Problem, TensorInfo, read_header, read_object

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
_WIDTHS = ("word_embed_proj_dim", "embedding_size", "hidden_size", "n_embd", "d_model")
"""Names of the width of the embedding, the most specific first."""
_PACKED = re.compile(r"(?:\.|^)(?:weight|qweight|weight_packed|weight_q|W_q|\w+_blocks)$")
_FLOATS = {"F16", "BF16", "F32", "F64"}

Tensors = Mapping[str, TensorInfo]


def find_weights(folder: Path) -> list[Path]:
    """The weights files that transformers loads from a folder; none if they are incomplete."""
    found = _find_shards(folder)
    return [] if isinstance(found, Problem) else sorted({folder / file for file in found.values()})


def read_weights(folder: Path) -> Tensors | Problem:
    """All tensors that transformers loads from a folder, by name."""
    shards = _find_shards(folder)
    if isinstance(shards, Problem):
        return shards
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(shards.values())):
        found = read_header(folder / file)
        if isinstance(found, Problem):
            return found
        tensors |= found
        if absent := sorted(name for name, where in shards.items() if name and where == file and name not in found):
            return Problem(
                "weights_incomplete",
                f"has a {file} without {absent[0]}, which {_INDEX} says it contains. Copy both files again.",
            )
    return tensors


def embedding_rows(config: JsonObject, tensors: Tensors) -> int | None:
    """Number of tokens that a model has an embedding for."""
    if (table := _embedding(tensors)) is not None:
        return table.shape[0]
    sizes = [part["vocab_size"] for part in text_configs(config) if isinstance(part.get("vocab_size"), int)]
    return sizes[-1] if sizes and isinstance(sizes[-1], int) else None


def check_tensors(config: JsonObject, tensors: Tensors) -> Problem | None:
    """The first problem of the tensors' types and of the embedding's shape."""
    for name, tensor in tensors.items():
        small = tensor.dtype.startswith(("F8", "F4", "F6_"))
        if small or (tensor.dtype not in _FLOATS and _PACKED.search(name) and len(tensor.shape) > 1):
            return quantized(f"{name} is of the type {tensor.dtype}")
    table = _embedding(tensors)
    part = list(text_configs(config))[-1]
    if table is None:
        return None
    width = next((part[field] for field in _WIDTHS if part.get(field) is not None), None)
    for field, stated, real in (("vocab_size", part.get("vocab_size"), 0), ("the hidden size", width, 1)):
        if isinstance(stated, int) and stated != table.shape[real]:
            return Problem(
                "weights_mismatch",
                f"does not match its config.json: {field} is {stated} there, and the embedding in the weights has the "
                f"shape {' x '.join(map(str, table.shape))}. Copy config.json and the weights from the same model.",
            )
    return None


def _embedding(tensors: Tensors) -> TensorInfo | None:
    """The token embedding; None if its name is not known or not unique."""
    found = [tensor for name, tensor in tensors.items() if _EMBEDDINGS.search(name) and len(tensor.shape) == 2]
    return found[0] if len(found) == 1 else None


def _find_shards(folder: Path) -> dict[str, str] | Problem:
    """The file of each tensor; one entry without a tensor's name if there is no index."""
    single, index = (folder / _SINGLE).is_file(), folder / _INDEX
    if not index.is_file():
        return {"": _SINGLE} if single else _unnamed(folder)
    content = read_object(index, TOKENIZER_LIMIT)
    shards = content if isinstance(content, Problem) else _parse_index(content)
    if isinstance(shards, Problem):
        return shards
    files = sorted(set(shards.values()))
    if absent := [file for file in files if not (folder / file).is_file()]:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        return Problem(
            "weights_incomplete", f"lacks {absent[0]}{more}, which {_INDEX} names. Copy all files of the model."
        )
    if single and files != [_SINGLE]:
        return Problem(
            "weights_ambiguous",
            f"has both {_SINGLE} and the files of {_INDEX}. Tools differ in which they load: remove one of the two.",
        )
    return shards


def _parse_index(content: JsonObject) -> dict[str, str] | Problem:
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        return Problem("weights_incomplete", f"has a {_INDEX} without a weight_map. Copy the file again.")
    for file in shards.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            return Problem(
                "link_outside_folder",
                f"has a {_INDEX} that names something other than safetensors files in its folder. Copy the file again.",
            )
    return {str(tensor): str(file) for tensor, file in shards.items()}


def _unnamed(folder: Path) -> Problem:
    first = min(path.name for path in folder.glob("*.safetensors"))
    return Problem(
        "weights_incomplete",
        f"has {first}, but neither {_SINGLE} nor {_INDEX}, which says what the files contain. Copy all of its files, "
        "or rename a single file.",
    )
