"""Attaches a LoRA adapter to a base model, saves it in peft's own format, and removes it again.

One copy of the base weights serves every run. An adapter applies to whole maps: the parts of a fused map share its A,
and each part has its own rows of B. Weights of experts are adapted too, each expert with its own A and B (peft's
`target_parameters`).
Not here: training (core.training), keeping the rows of untrained parts at zero (core.training.groups).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InvalidInput
from core.lm.load import BaseModel
from core.lm.modules import ROUTER, Module, has_experts
from core.schemas.training import LoraSpec


def choose(modules: Sequence[Module], lora: LoraSpec) -> tuple[Module, ...]:
    """The modules that get an update: those of the named types, or for `all` every module except routers.

    Raises:
        InvalidInput: code `unknown_module_type`, this model has no modules of a target type; `dropout_on_experts`.
    """
    known = {module.type for module in modules}
    wanted = known - {ROUTER} if lora.targets == "all" else set(lora.targets)
    if missing := sorted(wanted - known):
        raise InvalidInput(
            f"The base model has no modules of type {missing[0]!r}. Use some of {', '.join(sorted(known))}.",
            code="unknown_module_type",
            param="training.lora.targets",
        )
    chosen = tuple(module for module in modules if module.type in wanted)
    experts = any(module.bare for module in modules)
    if lora.dropout and (affected := sorted({module.type for module in chosen if experts and _as_parameter(module)})):
        raise InvalidInput(
            "Adapters of experts do not support dropout, and this base model has experts. Set training.lora.dropout to "
            f"0, or remove the targets {', '.join(affected)}.",
            code="dropout_on_experts",
            param="training.lora.dropout",
        )
    return chosen


@contextmanager
def attached(model: PreTrainedModel, modules: Sequence[Module], lora: LoraSpec, *, seed: int) -> Iterator[PeftModel]:
    """The base model with a new adapter on these modules; it is removed afterwards.

    A is random and B is zero, so the model equals the base model until it is trained.
    """
    parameters = [module for module in modules if _as_parameter(module)] if has_experts(model) else []
    parts = [module for module in modules if module not in parameters]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets([name for name, _ in model.named_modules()], {module.map for module in parts}, 1),
        target_parameters=_targets(
            [name for name, _ in model.named_parameters()], {module.weight for module in parameters}, 2
        ),
        fan_in_fan_out=any(isinstance(model.get_submodule(module.map), Conv1D) for module in parts),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = get_peft_model(model, config)
    with _removed(tuned):
        yield tuned


@contextmanager
def loaded(base: BaseModel, folder: Path) -> Iterator[PeftModel]:
    """The base model with a saved adapter; it is removed afterwards.

    The adapter is converted to the type of the base weights, as serving engines do: a float32 adapter beside bfloat16
    weights converts its inputs and outputs in every layer.
    """
    with _removed(PeftModel.from_pretrained(base.model, folder, autocast_adapter_dtype=False)) as tuned:
        yield tuned.eval()


@contextmanager
def reopened(base: BaseModel, folder: Path) -> Iterator[PeftModel]:
    """The base model with a saved adapter, ready for further training: in float32, as a new one. It is removed
    afterwards."""
    with _removed(PeftModel.from_pretrained(base.model, folder, is_trainable=True)) as tuned:
        yield tuned


def save(tuned: PeftModel, base: BaseModel, folder: Path) -> tuple[Path, ...]:
    """Save the adapter with the tokenizer and chat template it was trained with. Returns the files, sorted.

    The saved configuration names the base model by its identity, never by a path of this machine.
    """
    config = tuned.peft_config["default"]
    if not isinstance(config, LoraConfig) or not isinstance(config.target_modules, Collection):
        raise TypeError("the adapter is not a LoRA adapter with a list of target modules")
    config.base_model_name_or_path = base.identity.name
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # a set, whose order would change the file
    config.target_parameters = sorted(config.target_parameters or ()) or None
    # Otherwise peft looks for a model of this name on the public hub, to check whether the embeddings were resized.
    tuned.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    base.tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def base_model(tuned: PeftModel) -> PreTrainedModel:
    """The base model inside an adapter model, with the adapter's layers in it."""
    return cast(PreTrainedModel, tuned.get_base_model())


def lora_layers(tuned: PeftModel) -> dict[str, LoraLayer]:
    """The adapter's layers by the name of the map that each one adapts."""
    found: dict[str, LoraLayer] = {}
    for name, layer in base_model(tuned).named_modules():
        if isinstance(layer, LoraLayer):
            path = name.replace(".base_layer", "")
            leaf = layer.parameter_name if isinstance(layer, ParamWrapper) else "weight"
            found[path if leaf == "weight" else f"{path}.{leaf}"] = layer
    return found


def factors(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """The factors A and B of a layer's update. The rows of B are the outputs of the map, for every kind of map."""
    return layer.lora_A["default"].get_parameter("weight"), layer.lora_B["default"].get_parameter("weight")


@contextmanager
def keep_requires_grad(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Restore which of these parameters require a gradient: peft turns it on for all of them, frozen or not, whenever
    it switches an adapter on.
    """
    before = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def adapter_off(tuned: PeftModel) -> Iterator[PeftModel]:
    """The base model under an adapter, without gradients and without dropout; afterwards the adapter is as it was."""
    training = tuned.training
    with keep_requires_grad(tuned.parameters()), tuned.disable_adapter(), torch.no_grad():
        yield tuned.eval()
    tuned.train(training)


def _targets(names: Sequence[str], wanted: Collection[str], depth: int) -> list[str]:
    # Short names, which serving engines expect, if they select exactly these; full names otherwise.
    short = {_end(name, depth) for name in wanted}
    exact = {name for name in names if _end(name, depth) in short} == set(wanted)
    return sorted(short if exact else wanted)


def _end(name: str, depth: int) -> str:
    return ".".join(name.split(".")[-depth:])


def _as_parameter(module: Module) -> bool:
    """Whether a map of a model with experts is adapted as a parameter.

    For a model with experts, peft interprets `gate_proj` and similar names in `target_modules` as the old names of the
    experts' weights. Such maps must therefore be named as parameters.
    """
    return module.bare or module.type.removeprefix("shared_") in ("gate", "up", "down", ROUTER)


@contextmanager
def _removed(tuned: PeftModel) -> Iterator[PeftModel]:
    """Remove the adapter from its base model afterwards."""
    try:
        yield tuned
    finally:
        base = tuned.unload()
        base.requires_grad_(False).eval()
        if hasattr(base, "peft_config"):
            del base.peft_config
