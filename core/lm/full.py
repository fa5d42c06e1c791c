"""Trains a base model's own modules without an adapter: opens them, saves the whole model, and puts the base back.

One copy of the base weights serves every arm: the originals of what is trained wait in the host's memory meanwhile, and
afterwards the base is as it was, to the bit. While it is open, what is trained is float32: in bfloat16 small updates
would be lost in rounding.
Not here: training (core.training), adapters (core.lm.adapter).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.lm.load import BaseModel
from core.lm.modules import Module, own_parameters

_GENERATION = "generation_config.json"


@contextmanager
def opened(model: PreTrainedModel, modules: Sequence[Module]) -> Iterator[PreTrainedModel]:
    """The base model with these modules' own weights (and biases) ready to be trained; as before afterwards."""
    with _kept(model, modules) as parameters:
        for parameter in parameters:
            parameter.data = parameter.data.float()
        yield model


@contextmanager
def loaded(base: BaseModel, modules: Sequence[Module], folder: Path) -> Iterator[PreTrainedModel]:
    """The base model with these modules as a saved model has them; as before afterwards."""
    stored = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=base.model.dtype
    )
    with _kept(base.model, modules), torch.no_grad():
        for mine, saved in zip(_own(base.model, modules), _own(stored, modules), strict=True):
            mine.copy_(saved)
        del stored
        yield base.model


def save(model: PreTrainedModel, base: BaseModel, modules: Sequence[Module], folder: Path) -> tuple[Path, ...]:
    """Write the whole model as transformers loads it, with its tokenizer and chat template. Returns the files, by name.

    Weights are written, and from here on kept, in the precision that the base was loaded in.
    """
    for parameter in _own(model, modules):
        parameter.data = parameter.data.to(model.dtype)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    own = base.folder / _GENERATION
    options = json.loads(own.read_bytes()) if own.is_file() else {}
    # The model's own ways of answering, ended where a trained turn ends.
    (folder / _GENERATION).write_text(json.dumps(options | {"eos_token_id": base.stop_ids}, indent=2))
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


@contextmanager
def _kept(model: PreTrainedModel, modules: Sequence[Module]) -> Iterator[list[nn.Parameter]]:
    parameters = _own(model, modules)
    originals: list[Tensor] = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    try:
        yield parameters
    finally:
        model.requires_grad_(False).eval()
        for parameter, original in zip(parameters, originals, strict=True):
            parameter.grad = None
            parameter.data = parameter.data.to(original.dtype).copy_(original)


def _own(model: PreTrainedModel, modules: Sequence[Module]) -> list[nn.Parameter]:
    """Each parameter once, also where two modules share one: a weight, or a fused map."""
    found = [each for module in modules for each, _ in own_parameters(model, module)]
    return list({id(parameter): parameter for parameter in found}.values())
