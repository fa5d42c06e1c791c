"""Opens a base model's own modules for training without an adapter, saves the model, and restores the base weights.

One copy of the base weights serves every run: the originals of trained weights are stored in host memory meanwhile, and
restored bit for bit. Trained weights are float32, because bfloat16 would lose small updates in rounding.
Not here: training (core.training), adapters (core.lm.adapter).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.lm.load import BaseModel
from core.lm.modules import Module, own_parameters

_GENERATION = "generation_config.json"

Originals = Mapping[nn.Parameter, Tensor]
"""The base model's own values of parameters, in host memory and in the type of the base weights."""


@contextmanager
def opened(model: PreTrainedModel, modules: Sequence[Module]) -> Iterator[Originals]:
    """Make the weights and biases of these modules of the base model ready for training; they are restored afterwards.

    Yields the originals of these parameters.
    """
    with _kept(model, modules) as originals:
        for parameter in originals:
            parameter.data = parameter.data.float()
        yield originals


@contextmanager
def reopened(base: BaseModel, modules: Sequence[Module], folder: Path) -> Iterator[Originals]:
    """The same with the weights that a saved model has for these modules."""
    with opened(base.model, modules) as originals:
        _copy(base, modules, folder)
        yield originals


@contextmanager
def loaded(base: BaseModel, modules: Sequence[Module], folder: Path) -> Iterator[PreTrainedModel]:
    """The base model with the weights that a saved model has for these modules; restored afterwards."""
    with _kept(base.model, modules):
        _copy(base, modules, folder)
        yield base.model


def save(model: PreTrainedModel, base: BaseModel, modules: Sequence[Module], folder: Path) -> tuple[Path, ...]:
    """Save the whole model with its tokenizer and chat template, for transformers to load. Returns the files, sorted.

    Converts the trained weights to the precision that the base model was loaded in.
    """
    for parameter in _own(model, modules):
        parameter.data = parameter.data.to(model.dtype)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    own = base.folder / _GENERATION
    options = json.loads(own.read_bytes()) if own.is_file() else {}
    # The model's own generation settings, with the token that ends a trained turn.
    (folder / _GENERATION).write_text(json.dumps(options | {"eos_token_id": base.stop_ids}, indent=2))
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


@torch.no_grad()
def _copy(base: BaseModel, modules: Sequence[Module], folder: Path) -> None:
    """Give the base model's modules the weights of a saved model."""
    stored = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=base.model.dtype
    )
    for mine, saved in zip(_own(base.model, modules), _own(stored, modules), strict=True):
        mine.copy_(saved)


@contextmanager
def _kept(model: PreTrainedModel, modules: Sequence[Module]) -> Iterator[Originals]:
    originals = {parameter: parameter.detach().to("cpu", copy=True) for parameter in _own(model, modules)}
    try:
        yield originals
    finally:
        model.requires_grad_(False).eval()
        for parameter, original in originals.items():
            parameter.grad = None
            parameter.data = parameter.data.to(original.dtype).copy_(original)


def _own(model: PreTrainedModel, modules: Sequence[Module]) -> list[nn.Parameter]:
    """The parameters of these modules, each once: two modules may share a weight or a fused map."""
    found = [each for module in modules for each, _ in own_parameters(model, module)]
    return list({id(parameter): parameter for parameter in found}.values())
