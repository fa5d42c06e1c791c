"""Checks of loaded weights: all of them come from the files, all of the files' tensors are used, all are finite. And
the digest that identifies weights.

What is measured, trained and served must be the same model. transformers initialises missing weights at random and
ignores surplus ones, and only logs it. Not here: headers (core.modelfiles.weights), loading (core.lm.load).
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from core.lm.reading import invalid
from core.modelfiles import find_weights
from core.schemas.models import BaseModelEntry

_MASKS = re.compile(r"(?:^|\.)(?:attn|attention)\.(?:masked_)?bias$|\.inv_freq$")
"""Tensors that old versions saved though the code computes them: causal masks and rotary frequencies."""

LoadingInfo = Mapping[str, Collection[object]]
"""What `from_pretrained` reports with `output_loading_info`."""


def check_names(entry: BaseModelEntry, model: PreTrainedModel, found: LoadingInfo) -> None:
    """Check that the files contain exactly the model's weights.

    Raises:
        InvalidModel: code `weights_mismatch`, `weights_incomplete`, `surplus_weights` or `tied_weights_differ`.
    """
    mismatched = sorted(map(_describe_mismatch, found.get("mismatched_keys", ())))
    missing = sorted(map(str, found["missing_keys"]))
    surplus = sorted(name for name in map(str, found["unexpected_keys"]) if not _MASKS.search(name))
    kind = type(model).__name__
    if mismatched:
        raise invalid(
            entry,
            "weights_mismatch",
            f"has tensors of a shape that config.json rules out ({len(mismatched)}), such as {mismatched[0]}. Copy "
            "config.json and the weights from the same model.",
        )
    if missing:
        others = f" They contain {surplus[0]} instead, which {kind} does not use." if surplus else ""
        raise invalid(
            entry,
            "weights_incomplete",
            f"has weights files without {missing[0]} and {len(missing) - 1} other tensors that {kind} needs.{others} "
            "Copy all of its files. If only the output layer is missing, set tie_word_embeddings in config.json if it "
            "is shared with the embeddings.",
        )
    if surplus:
        raise invalid(
            entry,
            "surplus_weights",
            f"has tensors that {kind} does not use with this config.json ({len(surplus)}), such as "
            f"{', '.join(surplus[:3])}. The model that is measured might not be the one that is served: correct "
            "config.json (number of layers, biases), or remove the tensors.",
        )
    _check_tied(entry, model)


def _check_tied(entry: BaseModelEntry, model: PreTrainedModel) -> None:
    """transformers does not tie embeddings that differ, whatever the configuration says; serving engines do."""
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False) and model._tied_weights_keys
    if tied and head is not None and head.weight is not words.weight:
        raise invalid(
            entry,
            "tied_weights_differ",
            "has an output layer that differs from its embeddings, but config.json says that they are tied "
            "(tie_word_embeddings). Set it to false, or remove the output layer from the weights.",
        )


def check_finite(entry: BaseModelEntry, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Check that no weight is NaN or infinite.

    Raises:
        InvalidModel: code `weights_not_finite`, with the name of the first such tensor.
    """
    for name, tensor in tensors:
        # A sum is a third of the work of isfinite() and only rarely overflows.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise invalid(
                entry,
                "weights_not_finite",
                f"has weights that are NaN or infinite, in {name}. They come from a training that diverged, or from a "
                "damaged file: use an earlier checkpoint, or copy the file again.",
            )


@torch.inference_mode()
def loaded_tensors(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """Weights and stored buffers of a model, shared ones once."""
    found = {tensor.data_ptr(): (name, tensor) for name, tensor in model.state_dict().items()}
    return list(found.values())


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder's weights, one at a time: packed weights in memory do not show what they were."""
    for path in find_weights(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                yield name, file.get_tensor(name)


def digest_weights(paths: Iterable[Path]) -> str:
    """SHA-256, in hex, over name, type, shape and bytes of every tensor in safetensors files, in the order of names.

    Neither the names of the files, nor their metadata, nor how tensors are spread over them counts.
    """
    places: dict[str, Path] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    whole = sha256()
    for name, path in sorted(places.items()):
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        whole.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _describe_mismatch(mismatch: object) -> str:
    match mismatch:
        case (str(name), stored, wanted):
            return f"{name} ({_shape(stored)} instead of {_shape(wanted)})"
        case _:
            return str(mismatch)


def _shape(size: object) -> str:
    return " x ".join(map(str, size)) if isinstance(size, torch.Size) else str(size)
