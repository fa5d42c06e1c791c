"""After training: each module's update is projected onto the direction in which its weight was aligned.

After SafeLoRA (Hsu et al. 2024). With V the difference between a module's aligned and unaligned weight, the update B A
becomes (C B) A, where C is SafeLoRA's V V^T / |V| or the projection onto V's strongest directions; it does so where the
cosine between both updates is not above a threshold.

Two things are done otherwise than in the published code: weights are found by name, so that tied or missing tensors
cannot shift the pairs; and C, as large as output times output, is never made. Memory for a module is its own V.
Not here: adapters (core.lm.adapter), options (core.schemas.safeguards), full fine-tuning, which has no B and A.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.errors import InvalidModel
from core.lm.adapter import base_model, factors, lora_layers
from core.lm.modules import Module
from core.schemas.results import Projection
from core.schemas.safeguards import ProjectToSafe

_SEED = 0
_TINY = 1e-12
_EXACT = 1024


@dataclass(frozen=True)
class Update:
    """One module's update, B A up to its scale. `inputs` is A, `rank input`.

    `whole` is B of the module's map, `output rank`; of these outputs, `rows` are the module's own (null: all).
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

    def take(self, outputs: Tensor) -> None:
        """Put these rows in their place."""
        with torch.no_grad():
            if self.rows is None:
                self.whole.copy_(outputs)
            else:
                self.whole.index_copy_(0, self.rows, outputs.to(self.whole.dtype))


class Weights:
    """A folder of safetensors, from which single tensors are read by name when they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Reads headers only.

        Raises:
            InvalidModel: code `unaligned_base_unreadable`.
        """
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    self._files.update(dict.fromkeys(file.keys(), path))
            except (OSError, SafetensorError) as error:
                raise InvalidModel(
                    f"{path.name}, which project_to_safe needs, cannot be read: {error}",
                    code="unaligned_base_unreadable",
                    param="base_model",
                ) from error

    def find(self, weight: str, prefix: str) -> Tensor | None:
        """A weight by its name. Checkpoints name weights as the whole model does, or as the model without its head."""
        for name in (weight, weight.removeprefix(f"{prefix}.")):
            if path := self._files.get(name):
                with safe_open(path, framework="pt") as file:
                    return file.get_tensor(name)
        return None


def check_pair(aligned: Path, unaligned: Path) -> None:
    """Refuse, before anything is computed, two folders whose configurations say that they are no pair.

    Raises:
        InvalidModel: code `unaligned_base_mismatch`.
    """
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (aligned, unaligned))
    for field in ("model_type", "hidden_size", "num_hidden_layers", "n_embd", "n_layer", "intermediate_size"):
        if ours.get(field) != theirs.get(field):
            raise _mismatch(f"its {field} is {theirs.get(field)}, and the base model's is {ours.get(field)}")


def project(
    tuned: PeftModel, modules: Sequence[Module], aligned: Path, unaligned: Path, spec: ProjectToSafe
) -> tuple[Projection, ...]:
    """Project the adapter in place, module by module; parts of a fused map each by their own rows.

    Left alone, and not in what is returned: modules that were not trained, which have no update, and modules that
    alignment did not move, which have no direction.

    Raises:
        InvalidModel: code `unaligned_base_mismatch` or `unaligned_base_unreadable`.
    """
    prefix = str(getattr(base_model(tuned), "base_model_prefix", ""))
    ours, theirs = Weights(aligned), Weights(unaligned)
    found: list[Projection] = []
    for update in updates_of(tuned, modules):
        before = update.outputs
        direction = _direction(update, ours, theirs, prefix).to(before.device)
        if float(direction.norm()) <= _TINY:
            continue
        after = projected(before, direction, spec)
        cosine = cosine_of(before, after, update.inputs)
        taken = cosine <= spec.threshold
        if taken:
            update.take(after)
        found.append(Projection(module=update.module.name, cosine=cosine, projected=taken))
    return tuple(found)


def updates_of(tuned: PeftModel, modules: Sequence[Module]) -> Iterator[Update]:
    """Every update of the adapter that is not nothing."""
    layers = lora_layers(tuned)
    for module in modules:
        for inputs, whole in factors(layers[module.map]):
            update = Update(module, inputs.detach().float(), whole, module.indexes(whole.device))
            if bool(update.outputs.any()):
                yield update


def projected(outputs: Tensor, direction: Tensor, spec: ProjectToSafe) -> Tensor:
    """C B, multiplied from right to left.

    Args:
        outputs: B, `output rank`.
        direction: V, `output input`; not zero.
        spec: which C.
    """
    if spec.subspace == "weighted":
        return direction @ (direction.T @ outputs) / direction.norm()
    basis = _strongest(direction, spec.rank)
    return basis @ (basis.T @ outputs)


def cosine_of(before: Tensor, after: Tensor, inputs: Tensor) -> float:
    """Cosine between the updates `before inputs` and `after inputs`, from matrices of rank times rank only."""
    gram = inputs @ inputs.T

    def product(one: Tensor, other: Tensor) -> float:
        return float(((one.T @ other) * gram).sum())

    length = (max(0.0, product(before, before)) * max(0.0, product(after, after))) ** 0.5
    return max(-1.0, min(1.0, product(before, after) / length)) if length > _TINY**2 else 0.0


def _strongest(direction: Tensor, rank: int) -> Tensor:
    """Orthonormal `output rank`: left singular vectors of the greatest singular values, of large matrices nearly."""
    width = min(rank, *direction.shape)
    if min(direction.shape) <= max(_EXACT, 2 * width):
        return torch.linalg.svd(direction, full_matrices=False).U[:, :width]
    with torch.random.fork_rng(devices=[direction.device] if direction.device.type == "cuda" else []):
        torch.manual_seed(_SEED)  # the sketch is random
        return torch.svd_lowrank(direction, q=2 * width, niter=4)[0][:, :width]


def _direction(update: Update, ours: Weights, theirs: Weights, prefix: str) -> Tensor:
    """V of the module's own rows, `output input`."""
    module = update.module
    pair = [weights.find(module.weight, prefix) for weights in (ours, theirs)]
    for which, weight in zip(("the base model", "its unaligned_base"), pair, strict=True):
        if weight is None:
            raise _mismatch(f"the files of {which} hold no {module.weight}")
    aligned, unaligned = (weight.float() for weight in pair if weight is not None)
    if aligned.shape != unaligned.shape:
        raise _mismatch(
            f"{module.weight} has the shape {list(unaligned.shape)} there, and {list(aligned.shape)} in the base model"
        )
    whole = aligned - unaligned if module.axis == 0 else (aligned - unaligned).T
    if len(whole) != len(update.whole):
        raise _mismatch(f"{module.weight} is not stored as one matrix of {len(update.whole)} outputs")
    rows = module.indexes()
    return whole if rows is None else whole.index_select(0, rows)


def _mismatch(why: str) -> InvalidModel:
    return InvalidModel(
        f"The unaligned_base that the server's list names is not what this base model was aligned from: {why}.",
        code="unaligned_base_mismatch",
        param="base_model",
    )
