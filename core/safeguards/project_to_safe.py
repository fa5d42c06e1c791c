"""`project_to_safe`: after training, projects each module's update onto the direction in which alignment changed it.

After SafeLoRA (Hsu et al. 2024). With V the difference between a module's aligned and unaligned weight, the update B A
becomes (C B) A, where C is SafeLoRA's V V^T / |V| or the projection onto V's strongest directions, if the cosine
between the two updates is at most a threshold.

Two differences from the published code: weights are found by name, so that tied or missing tensors cannot shift the
pairs, and C, which is as large as output times output, is never computed. The memory for a module is that of its V.
Not here: adapters (core.lm.adapter), full fine-tuning, which has no B and A.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from core.errors import InvalidInput, InvalidModel
from core.lm.adapter import base_model, factors, lora_layers
from core.lm.files import fetch
from core.lm.modules import Module
from core.modelfiles import check_files
from core.safeguards.interface import Safeguard, SafeguardContext
from core.schemas.models import BaseModelEntry
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import ProjectToSafe

_SEED = 0
_TINY = 1e-12
_MAX_EXACT = 1024
"""Smaller side of the largest matrix whose singular vectors are computed exactly."""


class AlignmentProjection(Safeguard[ProjectToSafe]):
    """Projects the trained adapter."""

    options_class = ProjectToSafe

    @override
    def check(self, context: SafeguardContext) -> None:
        """See the base class.

        Raises:
            InvalidInput: code `safeguard_unsupported`; experts are trained.
            InvalidModel: code `unaligned_base_mismatch`, or any error of `core.lm.files.fetch`.
        """
        if experts := sorted({module.type for module in context.modules if module.bare}):
            raise InvalidInput(
                "The safeguard project_to_safe does not support updates of experts. Leave it out, or leave out the "
                f"targets {', '.join(experts)}.",
                code="safeguard_unsupported",
                param="training.lora.targets",
            )
        check_pair(context.base.folder, fetch_unaligned(context.entry))

    @override
    def inputs(self, context: SafeguardContext) -> JsonValue:
        return context.entry.model_dump(mode="json")["unaligned_base"]

    @override
    def after_training(self, context: SafeguardContext, tuned: PeftModel | PreTrainedModel) -> SafeguardEffect:
        if not isinstance(tuned, PeftModel):
            raise TypeError("core.catalog.check_runs rejects project_to_safe with full fine-tuning")
        unaligned = fetch_unaligned(context.entry)
        cosines = project(tuned, context.modules, context.base.folder, unaligned, self.options)
        projected_count = sum(cosine <= self.options.threshold for cosine in cosines.values())
        return SafeguardEffect(
            safeguard=self.options.name,
            summary=f"{projected_count} of {len(cosines)} updates projected",
            counts={"updates": len(cosines), "projected": projected_count},
            by_module=cosines,
        )


def fetch_unaligned(entry: BaseModelEntry) -> Path:
    """The folder of the model that this base model was aligned from; a model of the hub is downloaded once.

    Raises:
        InvalidModel: see `core.lm.files.fetch` and `core.modelfiles.check_files`.
    """
    if entry.unaligned_base is None:
        raise TypeError("core.catalog.check_runs rejects project_to_safe without an unaligned_base")
    name = f"{entry.name} (its unaligned_base)"
    folder = fetch(entry.model_copy(update={"name": name, "source": entry.unaligned_base}))
    check_files(name, folder, tokenizer=False)
    return folder


@dataclass(frozen=True)
class Update:
    """One module's update, B A up to its scale.

    `inputs` is A, `rank input`. `whole` is B of the module's map, `output rank`, of which `rows` belong to the module;
    None means all rows.
    """

    module: Module
    inputs: Tensor
    whole: nn.Parameter
    rows: Tensor | None

    @property
    def outputs(self) -> Tensor:
        """The module's own rows of B, float32."""
        whole = self.whole.detach()
        return (whole if self.rows is None else whole.index_select(0, self.rows)).float()

    def replace(self, outputs: Tensor) -> None:
        """Replace the module's own rows of B."""
        with torch.no_grad():
            if self.rows is None:
                self.whole.copy_(outputs)
            else:
                self.whole.index_copy_(0, self.rows, outputs.to(self.whole.dtype))


class Weights:
    """The safetensors files of a folder; single tensors are read by name."""

    def __init__(self, folder: Path, owner: str) -> None:
        """Read the headers only. `owner` names the model in messages.

        Raises:
            InvalidModel: code `unaligned_base_unreadable`.
        """
        self._owner = owner
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    self._files.update(dict.fromkeys(file.keys(), path))
            except (OSError, SafetensorError) as error:
                raise InvalidModel(
                    f"project_to_safe cannot read {path.name} of the base model or its unaligned_base: {error}",
                    code="unaligned_base_unreadable",
                    param="base_model",
                ) from error

    def find(self, weight: str, prefix: str) -> Tensor:
        """A weight by its name, with or without the prefix of the model without its head.

        Raises:
            InvalidModel: code `unaligned_base_mismatch`.
        """
        for name in (weight, weight.removeprefix(f"{prefix}.")):
            if path := self._files.get(name):
                with safe_open(path, framework="pt") as file:
                    return file.get_tensor(name)
        raise _mismatch(f"the files of {self._owner} do not contain {weight}")


def check_pair(aligned: Path, unaligned: Path) -> None:
    """Reject two models whose configurations differ in architecture or size, before anything is computed.

    Raises:
        InvalidModel: code `unaligned_base_mismatch`.
    """
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (aligned, unaligned))
    for field in ("model_type", "hidden_size", "num_hidden_layers", "n_embd", "n_layer", "intermediate_size"):
        if ours.get(field) != theirs.get(field):
            raise _mismatch(f"its {field} is {theirs.get(field)}, but the base model's is {ours.get(field)}")


def project(
    tuned: PeftModel, modules: Sequence[Module], aligned: Path, unaligned: Path, options: ProjectToSafe
) -> dict[str, float]:
    """Project the adapter in place, module by module; parts of a fused map each by their own rows.

    Returns the cosine between update and projection for each module; the update was projected if it is at most the
    threshold. Modules without an update and modules that alignment did not change are skipped and not returned.

    Raises:
        InvalidModel: code `unaligned_base_mismatch` or `unaligned_base_unreadable`.
    """
    prefix = str(getattr(base_model(tuned), "base_model_prefix", ""))
    ours, theirs = Weights(aligned, "the base model"), Weights(unaligned, "its unaligned_base")
    cosines: dict[str, float] = {}
    for update in updates_of(tuned, modules):
        before = update.outputs
        direction = _direction(update, ours, theirs, prefix).to(before.device)
        if float(direction.norm()) <= _TINY:
            continue
        after = projected(before, direction, options)
        cosine = cosines[update.module.name] = cosine_of(before, after, update.inputs)
        if cosine <= options.threshold:
            update.replace(after)
    return cosines


def updates_of(tuned: PeftModel, modules: Sequence[Module]) -> Iterator[Update]:
    """Every nonzero update of the adapter."""
    layers = lora_layers(tuned)
    for module in modules:
        inputs, whole = factors(layers[module.map])
        update = Update(module, inputs.detach().float(), whole, module.indexes(whole.device))
        if bool(update.outputs.any()):
            yield update


def projected(outputs: Tensor, direction: Tensor, options: ProjectToSafe) -> Tensor:
    """C B, multiplied from right to left, from B, `output rank`, and a nonzero V, `output input`."""
    if options.subspace == "weighted":
        return direction @ (direction.T @ outputs) / direction.norm()
    basis = _strongest_directions(direction, options.rank)
    return basis @ (basis.T @ outputs)


def cosine_of(before: Tensor, after: Tensor, inputs: Tensor) -> float:
    """Cosine between the updates `before @ inputs` and `after @ inputs`, computed from rank-by-rank matrices only."""
    gram = inputs @ inputs.T

    def product(one: Tensor, other: Tensor) -> float:
        return float(((one.T @ other) * gram).sum())

    length = (max(0.0, product(before, before)) * max(0.0, product(after, after))) ** 0.5
    return max(-1.0, min(1.0, product(before, after) / length)) if length > _TINY**2 else 0.0


def _strongest_directions(direction: Tensor, rank: int) -> Tensor:
    """Left singular vectors of the largest singular values, `output rank`; approximate for large matrices."""
    width = min(rank, *direction.shape)
    if min(direction.shape) <= max(_MAX_EXACT, 2 * width):
        return torch.linalg.svd(direction, full_matrices=False).U[:, :width]
    with torch.random.fork_rng(devices=[direction.device] if direction.device.type == "cuda" else []):
        torch.manual_seed(_SEED)  # svd_lowrank starts from random vectors
        return torch.svd_lowrank(direction, q=2 * width, niter=4)[0][:, :width]


def _direction(update: Update, ours: Weights, theirs: Weights, prefix: str) -> Tensor:
    """V for the module's own rows, `output input`."""
    module = update.module
    aligned, unaligned = (weights.find(module.weight, prefix).float() for weights in (ours, theirs))
    if aligned.shape != unaligned.shape:
        raise _mismatch(
            f"its {module.weight} has the shape {list(unaligned.shape)}, but the base model's has {list(aligned.shape)}"
        )
    whole = aligned - unaligned if module.axis == 0 else (aligned - unaligned).T
    if len(whole) != len(update.whole):
        raise _mismatch(f"{module.weight} is not stored as one matrix of {len(update.whole)} outputs")
    rows = module.indexes()
    return whole if rows is None else whole.index_select(0, rows)


def _mismatch(why: str) -> InvalidModel:
    return InvalidModel(
        f"The unaligned_base in the server's list is not the model that this base model was aligned from: {why}. "
        "Correct the model's entry.",
        code="unaligned_base_mismatch",
        param="base_model",
    )
