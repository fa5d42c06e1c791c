"""Attaches a LoRA adapter to a base model, saves it in peft's own format, and takes it off again.

One copy of the base weights serves every arm. Not here: training (core.training).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InvalidInput
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.spec.training import LoraSpec


def choose(modules: Sequence[Module], lora: LoraSpec) -> tuple[Module, ...]:
    """The modules that get an update.

    Raises:
        InvalidInput: code `unknown_module_type`; a target that this model does not have.
    """
    if lora.targets == "all":
        return tuple(modules)
    known = {module.type for module in modules}
    for target in lora.targets:
        if target not in known:
            raise InvalidInput(
                f"The base model has no modules of type {target!r}; it has {', '.join(sorted(known))}.",
                code="unknown_module_type",
                param="training.lora.targets",
            )
    return tuple(module for module in modules if module.type in lora.targets)


@contextmanager
def attached(model: PreTrainedModel, modules: Sequence[Module], lora: LoraSpec, *, seed: int) -> Iterator[PeftModel]:
    """The base model with a fresh adapter on these modules; the base is as before afterwards.

    An adapter's A is random and its B zero, so the model answers as the base does until it is trained.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, modules),
        fan_in_fan_out=isinstance(model.get_submodule(modules[0].name), Conv1D),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = get_peft_model(model, config)
    try:
        yield tuned
    finally:
        _take_off(tuned)


@contextmanager
def loaded(base: BaseModel, folder: Path) -> Iterator[PeftModel]:
    """The base model with a saved adapter; the base is as before afterwards."""
    tuned = PeftModel.from_pretrained(base.model, folder)
    try:
        yield tuned.eval()
    finally:
        _take_off(tuned)


def save(tuned: PeftModel, base: BaseModel, folder: Path) -> tuple[Path, ...]:
    """Write the adapter, with the tokenizer and chat template it was trained with. Returns the files, by name.

    The base model is named by its identity, never by a path of this machine.
    """
    config = tuned.peft_config["default"]
    if not isinstance(config, LoraConfig) or not isinstance(config.target_modules, Collection):
        raise TypeError("securetune's adapters are LoRA with a list of targets")
    config.base_model_name_or_path = base.identity.name
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # a set in memory: its order would change the file
    # peft would otherwise ask the public hub for a model of this name, to see whether the embeddings have grown.
    tuned.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    base.tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def module_of(parameter: str) -> str:
    """Name of the base model's module that an adapter's parameter belongs to."""
    return parameter.removeprefix("base_model.model.").partition(".lora_")[0]


def _targets(model: PreTrainedModel, modules: Sequence[Module]) -> list[str]:
    # Short names where they mean exactly these modules: serving engines read them. Full names otherwise.
    leaves = {module.leaf for module in modules}
    same_name = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in leaves}
    exact = same_name == {module.name for module in modules}
    return sorted(leaves) if exact else [module.name for module in modules]


def _take_off(tuned: PeftModel) -> None:
    base = tuned.unload()
    base.requires_grad_(False).eval()
    if hasattr(base, "peft_config"):
        del base.peft_config
