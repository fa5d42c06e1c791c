"""A run's checkpoint: all that is needed to go on as if nothing had happened, in one file of the artifact store.

The file is safetensors, with how far the run is as JSON in its header, so tensors and position can never be of
different steps. It holds trained weights, the optimizer's state, the best weights so far and the states of torch's
random generators; nothing else in the loop draws chance while it runs. Rates, phases and the order of rows follow from
the step.
Not here: when a checkpoint is taken (the loop), which key it has (core.pipeline.steps).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from core.storage import ArtifactStore
from core.training.position import Position

_VERSION = "1"
_POSITION = TypeAdapter(Position)
_WEIGHT, _OPTIMIZER, _BEST, _CHANCE = "weight", "optimizer", "best", "chance"
_log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A run at one step."""

    position: Position
    """How far it is."""
    tensors: Tensors
    """Everything else, by kind and name."""


@dataclass(frozen=True)
class Checkpoints:
    """Where one run's checkpoint is kept: there is one at most, the newest.

    Two attempts at once (one was thought dead) do no harm: both do the same run, and either's checkpoint is of it.
    """

    store: ArtifactStore
    """The artifact store, which shows a file whole or not at all."""
    key: str
    """Names everything that the run hangs on, so that a run of other inputs has another."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Put it in the place of the one before.

        Raises:
            StorageFull: there is no room.
        """
        told = {"version": _VERSION, "position": _POSITION.dump_json(checkpoint.position).decode()}
        with self.store.staging() as folder:
            path = folder / "checkpoint.safetensors"
            save_file(checkpoint.tensors, path, metadata=told)
            self.store.adopt(self.key, path, name="checkpoint.safetensors", gated=True)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint; None when there is none, or none that this version can read."""
        if not self.store.has(self.key):
            return None
        try:
            with safe_open(self.store.path(self.key), framework="pt") as file:
                told = file.metadata() or {}
                if told.get("version") != _VERSION:
                    return None
                position = _POSITION.validate_json(told["position"])
                return Checkpoint(position, {name: file.get_tensor(name).clone() for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, ValidationError, KeyError) as error:
            _log.warning("The checkpoint %s cannot be read (%s): training begins anew", self.key, error)
            return None

    def remove(self) -> None:
        """The run is over."""
        self.store.remove(self.key)


def gather(
    parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, best: Mapping[str, Tensor], device: torch.device
) -> Tensors:
    """The state of a run, as it is now; some of the tensors are the run's own."""
    found = {f"{_WEIGHT}/{name}": parameter.detach().contiguous() for name, parameter in parameters.items()}
    found |= {f"{_BEST}/{name}": weight for name, weight in best.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{_OPTIMIZER}/{key}/{name}"] = value
    found[f"{_CHANCE}/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        found[f"{_CHANCE}/cuda"] = torch.cuda.get_rng_state(device)
    return found


def put_back(
    tensors: Tensors, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, device: torch.device
) -> Tensors:
    """Make a run what it was. Returns the best weights so far."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"{_WEIGHT}/{name}"])
    names = {id(parameter): name for name, parameter in parameters.items()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    number = {name: index for index, name in enumerate(order)}
    state: dict[int, Tensors] = {}
    for path, value in _of_kind(tensors, _OPTIMIZER).items():
        key, _, name = path.partition("/")
        state.setdefault(number[name], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors[f"{_CHANCE}/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors[f"{_CHANCE}/cuda"], device)
    return _of_kind(tensors, _BEST)


def _of_kind(tensors: Tensors, kind: str) -> Tensors:
    return {name.removeprefix(f"{kind}/"): value for name, value in tensors.items() if name.startswith(f"{kind}/")}
