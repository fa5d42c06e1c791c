"""Whether trained weights, loaded anew from their files, are another model than the base model.

Covers: training that changed nothing, and adapters that are others once they are merged. Differences are measured
beside the noise floor: the base model against itself in another batch, which differs by rounding. Maps are merged one
at a time while they compute, so that no second copy of the model is needed and the base weights stay as they are to the
bit. Not here: what the difference means for tasks or safety (core.attacks, core.quality).
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from core.data.encoded import IGNORED, Encoded
from core.errors import TrainingFailed
from core.lm.adapter import lora_layers
from core.lm.load import BaseModel
from core.lm.logits import logits_at
from core.schemas.evaluation import WeightsProof
from core.schemas.events import Warned

_MAX_ROWS = 8
_MAX_TOKENS = 128
_POSITIONS = 8
"""Tokens of each row whose prediction is compared: the first ones that are trained on."""
MAX_MERGED_SHARE = 0.1
"""Share of the change by training that merging may change."""


class BaseProbabilities:
    """What the base model predicts on some rows. Create it while no trained weights are loaded."""

    def __init__(self, base: BaseModel, rows: Sequence[Encoded]) -> None:
        """`rows` are training rows, of which the first are used."""
        self._base = base
        chosen = [row for row in rows if len(row.input_ids) > 1][:_MAX_ROWS]
        self._ids = [torch.from_numpy(row.input_ids[:_MAX_TOKENS]).long() for row in chosen]
        self._places = [_trained_places(row) for row in chosen]
        self._alone = torch.cat([self._predict(base.model, [number]) for number in range(len(chosen))])
        self._noise = _distance(self._alone, self._predict(base.model, range(len(chosen))))

    def compare(self, model: nn.Module, run: str) -> WeightsProof:
        """Compare a trained model, which is loaded on the base model, with the base model."""
        tuned = torch.cat([self._predict(model, [number]) for number in range(len(self._ids))])
        merged: float | None = None
        if isinstance(model, PeftModel) and _can_merge(model):
            with _merged_while_computing(model):
                again = torch.cat([self._predict(model, [number]) for number in range(len(self._ids))])
            merged = _distance(tuned, again)
        return WeightsProof(
            run=run,
            tokens=len(self._alone),
            change=_distance(self._alone, tuned),
            noise=self._noise,
            merged=merged,
        )

    @torch.no_grad()
    def _predict(self, model: nn.Module, numbers: Sequence[int]) -> Tensor:
        """Probabilities of the next token at the places of these rows, in one batch: `places vocabulary`."""
        ids = nn.utils.rnn.pad_sequence([self._ids[number] for number in numbers], batch_first=True)
        lengths = torch.tensor([len(self._ids[number]) for number in numbers])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]  # on the right, where causal attention never looks
        device = self._base.device
        places = [(row, place) for row, number in enumerate(numbers) for place in self._places[number]]
        logits = logits_at(model, ids.to(device), mask.long().to(device), torch.tensor(places, device=device))
        return logits.float().softmax(-1).cpu()


def check_proof(proof: WeightsProof) -> None:
    """Fail a run whose stored weights do nothing.

    Raises:
        TrainingFailed: code `training_without_effect`.
    """
    if proof.change > proof.noise:
        return
    raise TrainingFailed(
        f"The trained weights of {proof.run} predict what the base model predicts (difference {proof.change:.2g}, "
        f"rounding {proof.noise:.2g}), so there is nothing to measure. Train more steps or at a higher learning rate.",
        code="training_without_effect",
        param="training.learning_rate",
    )


def merge_warning(proof: WeightsProof | None, weights: str) -> Warned | None:
    """A warning if the adapter is another one once it is merged into weights of this precision."""
    if proof is None or proof.merged is None or proof.merged <= max(proof.noise, MAX_MERGED_SHARE * proof.change):
        return None
    return Warned(
        code="merged_adapter_differs",
        message=f"Merged into {weights} weights, the adapter of {proof.run} predicts otherwise than beside them: "
        f"{proof.merged:.2g} of the probability moves, where training moved {proof.change:.2g}. Small updates are lost "
        "in rounding. Serve the adapter unmerged, or merge it in float32.",
    )


def _trained_places(row: Encoded) -> list[int]:
    """Places before the first trained tokens of a row, whose prediction training changes."""
    labels = row.labels[1:_MAX_TOKENS]
    places = [place for place, label in enumerate(labels.tolist()) if label != IGNORED]
    return places[:_POSITIONS] or [len(labels) - 1]


def _distance(one: Tensor, other: Tensor) -> float:
    """Mean total variation distance of two lists of distributions, 0 to 1."""
    return float((one - other).abs().sum(-1).mean() / 2)


def _can_merge(tuned: PeftModel) -> bool:
    layers = lora_layers(tuned).values()
    return not any(
        isinstance(layer, ParamWrapper) or not _weight(_as_module(layer)).is_floating_point() for layer in layers
    )


@contextmanager
def _merged_while_computing(tuned: PeftModel) -> Generator[None]:
    """Each adapted map has its update merged into its weight while it computes, and its own weight otherwise."""
    kept: dict[nn.Module, Tensor] = {}

    def merge(layer: nn.Module, _arguments: object) -> None:
        weight = _weight(layer)
        kept[layer], weight.data = weight.data, weight.data.clone()
        cast("LoraLayer", layer).merge()

    def restore(layer: nn.Module, _arguments: object, _output: object) -> None:
        cast("LoraLayer", layer).unmerge()
        _weight(layer).data = kept.pop(layer)

    with ExitStack() as stack:
        for layer in map(_as_module, lora_layers(tuned).values()):
            stack.callback(layer.register_forward_pre_hook(merge).remove)
            stack.callback(layer.register_forward_hook(restore).remove)
        yield


def _as_module(layer: LoraLayer) -> nn.Module:
    return cast("nn.Module", layer)


def _weight(layer: nn.Module) -> nn.Parameter:
    return cast("nn.Module", cast("LoraLayer", layer).get_base_layer()).get_parameter("weight")
