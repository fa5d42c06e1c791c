"""The weights that a run ends with: the last ones, their moving average, or those of an earlier measurement.

Covers: the average over steps, measuring the average instead of the trained weights, copies of the weights at a
measurement, what of this is in a checkpoint. Not here: when something is measured (core.training.loop), who chooses
(core.safeguards), what changes the weights after training (core.safeguards).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from core.errors import TrainingFailed
from core.schemas.results import SecurityStep
from core.training.checkpoint import Tensors, of_kind

_AVERAGE, _KEPT = "average", "kept"
"""Kinds of tensors in a checkpoint."""


@dataclass(frozen=True)
class EndWeights:
    """Which weights a run ends with. By default the last ones, or with early stopping those with the best validation
    loss.
    """

    decay: float | None = None
    """Decay per step of an exponential moving average of the trained weights, which begins at the initial weights. The
    average is measured and kept instead of the trained weights. None for no average."""
    max_refusal_drift: float | None = None
    """The run ends with the weights of its last measurement, after step 0, with at most this refusal drift, in nats per
    token. None for no bound."""
    drift_patience: int | None = None
    """Training ends after this many measurements in a row above `max_refusal_drift`. None trains to the end."""

    def is_safe(self, point: SecurityStep) -> bool:
        """Whether the weights of a measurement may end the run. Step 0 does not count: nothing was learnt by then."""
        return self.max_refusal_drift is not None and point.step > 0 and point.refusal_drift <= self.max_refusal_drift

    def safe_step(self, security: Sequence[SecurityStep]) -> int | None:
        """The step that the run ends with by these measurements; None if `max_refusal_drift` is None.

        Raises:
            TrainingFailed: code `no_safe_weights`; no measurement after step 0 is within the bound.
        """
        if self.max_refusal_drift is None:
            return None
        safe = [point.step for point in security if self.is_safe(point)]
        if not safe:
            raise TrainingFailed(
                f"The refusal drift exceeds {self.max_refusal_drift:g} nats per token at every measurement after step "
                "0, so only the untrained model is within the bound. Use a smaller learning rate, add safety_mix, or "
                "raise max_refusal_drift.",
                code="no_safe_weights",
                param="strategy.safeguards.keep_safe_weights",
            )
        return safe[-1]

    def patience_ended(self, security: Sequence[SecurityStep]) -> bool:
        """Whether the latest `drift_patience` measurements are above the bound."""
        if self.max_refusal_drift is None or self.drift_patience is None:
            return False
        latest = security[-self.drift_patience :]
        return len(latest) == self.drift_patience and all(
            point.refusal_drift > self.max_refusal_drift for point in latest
        )


LAST_WEIGHTS = EndWeights()
"""The default."""


class KeptWeights:
    """The average and the kept copy of a run's trained weights.

    The average is on the device of the weights and takes as much memory as they do. The kept copy is in host memory.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float | None) -> None:
        """Begin the average at the current weights. `parameters` are all that the run trains, by name."""
        self._parameters, self._decay = parameters, decay
        self._average: Tensors = {}
        self._kept: Tensors = {}
        if decay is not None:
            self._average = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Add the weights after an optimizer step to the average."""
        if self._decay is not None:
            for name, average in self._average.items():
                average.lerp_(self._parameters[name], 1.0 - self._decay)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """The model has the weights that are measured: the average, if there is one. Nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Keep a copy of the weights that are measured. It replaces an earlier one."""
        current = self._average or self._parameters
        self._kept = {name: weight.detach().to("cpu", copy=True) for name, weight in current.items()}

    @torch.no_grad()
    def finish(self) -> None:
        """Give the model the weights that the run ends with."""
        for name, weight in (self._kept or self._average).items():
            self._parameters[name].copy_(weight)

    def collect(self) -> Tensors:
        """The tensors for a checkpoint."""
        kinds = {_AVERAGE: self._average, _KEPT: self._kept}
        return {f"{kind}/{name}": each.contiguous() for kind, found in kinds.items() for name, each in found.items()}

    def restore(self, tensors: Tensors) -> None:
        """Resume from the tensors of a checkpoint."""
        self._kept = of_kind(tensors, _KEPT)
        for name, average in of_kind(tensors, _AVERAGE).items():
            self._average[name].copy_(average)

    def _swap(self) -> None:
        for name, average in self._average.items():
            parameter = self._parameters[name]
            self._average[name], parameter.data = parameter.data, average
