"""Model folders with real weights for tests: a tiny random Llama with the testbed's tokenizer, and changes to it."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.schemas.models import BaseModelEntry, FolderSource

CPU = torch.device("cpu")
Change = Callable[[Path], object]
"""Changes a model folder."""


def entry(folder: Path) -> BaseModelEntry:
    return BaseModelEntry(name="small", source=FolderSource(path=folder))


def edit(path: Path, **fields: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def config(**fields: object) -> Change:
    return lambda folder: edit(folder / "config.json", **fields)


def weights(change: Callable[[dict[str, Tensor]], object]) -> Change:
    """Change the tensors of the weights file, by name."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return spoil
