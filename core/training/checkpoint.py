"""The checkpoint of a training run: one file in the artifact store from which an interrupted run resumes exactly.

The file is safetensors with the position as JSON in its header, so tensors and position always belong to the same step.
It contains the trained weights, the optimizer state, the states of torch's random generators, the only ones that the
loop uses, and the tensors of core.training.kept. Rates, phases and the order of rows follow from the step.
Not here: when a checkpoint is saved (the loop), the key of the file (core.pipeline).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from core.schemas.results import SecurityStep, TrainedStep, ValidatedStep
from core.storage import ArtifactStore

_VERSION = "1"
_WEIGHT, _OPTIMIZER, _RNG = "weight", "optimizer", "chance"
"""Kinds of tensors: the first part of their names in the file."""
_log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


@dataclass
class Position:
    """The position of a run. Learning rates, phase and the rows of the next batch follow from the step."""

    step: int = 0
    """Number of completed steps."""
    seconds: float = 0.0
    """Time spent on these steps, over all attempts."""
    first_loss: float = 0.0
    """Loss of the first step, nats per token."""
    above: int = 0
    """Number of latest steps in a row whose loss is far above the first."""
    curve: list[TrainedStep] = field(default_factory=list)
    validation: list[ValidatedStep] = field(default_factory=list)
    security: list[SecurityStep] = field(default_factory=list)
    refusal_nll: float = 0.0
    """Negative log-likelihood of refusals before the first step, the zero of the refusal drift."""

    @property
    def best(self) -> ValidatedStep | None:
        """The validation with the lowest loss; the first one if several are equal."""
        return min(self.validation, key=lambda point: point.loss, default=None)

    def patience_ended(self, patience: int | None) -> bool:
        """Whether the last `patience` validations did not improve on the best one."""
        if patience is None or self.best is None:
            return False
        return len(self.validation) - 1 - self.validation.index(self.best) >= patience


_POSITION = TypeAdapter(Position)


@dataclass(frozen=True)
class Checkpoints:
    """The place of a run's checkpoint. Only the newest is stored.

    Two attempts at the same time (one was believed dead) do no harm: both compute the same run, so the checkpoint of
    either is valid.
    """

    store: ArtifactStore
    """The artifact store, whose writes are atomic."""
    key: str
    """Key of the file. It depends on all inputs of the run, so that a run with other inputs has another key."""

    def save(self, position: Position, tensors: Tensors) -> None:
        """Replace the stored checkpoint.

        Raises:
            StorageFull: the store has no space left.
        """
        metadata = {"version": _VERSION, "position": _POSITION.dump_json(position).decode()}
        with self.store.staging() as folder:
            path = folder / "checkpoint.safetensors"
            save_file(tensors, path, metadata=metadata)
            self.store.adopt(self.key, path, name="checkpoint.safetensors", gated=True)

    def load(self) -> tuple[Position, Tensors] | None:
        """The newest checkpoint, or None if there is none that this version can read."""
        if not self.store.has(self.key):
            return None
        try:
            with safe_open(self.store.path(self.key), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("version") != _VERSION:
                    return None
                position = _POSITION.validate_json(metadata["position"])
                return position, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValidationError, KeyError) as error:
            _log.warning("The checkpoint %s cannot be read (%s): training starts from the beginning", self.key, error)
            return None

    def remove(self) -> None:
        """Delete the checkpoint of a finished run."""
        self.store.remove(self.key)


def collect_tensors(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, device: torch.device) -> Tensors:
    """The tensors of a run's current state. Some of them share memory with the run."""
    found = {f"{_WEIGHT}/{name}": parameter.detach().contiguous() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{_OPTIMIZER}/{key}/{name}"] = value
    found[f"{_RNG}/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        found[f"{_RNG}/cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore(
    tensors: Tensors, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, device: torch.device
) -> None:
    """Restore the state that `collect_tensors` collected."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"{_WEIGHT}/{name}"])
    names = {id(parameter): name for name, parameter in parameters.items()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    number = {name: index for index, name in enumerate(order)}
    state: dict[int, Tensors] = {}
    for path, value in of_kind(tensors, _OPTIMIZER).items():
        key, _, name = path.partition("/")
        state.setdefault(number[name], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors[f"{_RNG}/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors[f"{_RNG}/cuda"], device)


def of_kind(tensors: Tensors, kind: str) -> Tensors:
    """The tensors whose names begin with `kind/`, by the rest of their names."""
    return {name.removeprefix(f"{kind}/"): value for name, value in tensors.items() if name.startswith(f"{kind}/")}
