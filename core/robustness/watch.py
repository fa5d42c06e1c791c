"""Watches a probe while it is trained: ends it, and measures modules where it breaks refusals.

A probe has broken refusals once they have drifted by `BREAK`. Its map there and its map later, after as many steps
again, show whether the map depends on when it is measured.
Not here: training the probe (core.training.probe), the map and the search (core.robustness.analyse).
"""

from collections.abc import Callable

from peft import PeftModel
from torch import nn

from core.robustness.gradient import Halves
from core.schemas.analysis import ProbeSpec, Proxy

Attribute = Callable[[PeftModel, Proxy | None], dict[str, Halves]]
"""Returns the figures of every module of a probe, from each half of the prompts and rows: of one proxy, or all."""

BREAK = 1.0
"""Refusal drift at which refusals are broken, nats per token."""
_FIRST_CHECK = 5
"""Steps until the refusal drift is first measured; then after twice as many, and so on. Ordinary data can break a real
model within ten steps."""


class ProbeWatch:
    """The state of one probe."""

    def __init__(
        self,
        probe: ProbeSpec,
        proxy: Proxy,
        refusal_drift: Callable[[nn.Module], float],
        attribute: Attribute | None,
    ) -> None:
        """`refusal_drift` measures a model, in nats per token. `attribute` measures modules, by `proxy` at the break;
        without it, modules are not measured.
        """
        self._probe, self._proxy = probe, proxy
        self._refusal_drift, self.attribute = refusal_drift, attribute
        self._last = probe.steps
        self._broken = False
        self.last_step = 0
        """The step that the probe has reached."""
        self.at_break: dict[str, Halves] | None = None
        """The drift of every module where refusals broke; None if they did not, or only at the probe's end."""

    def early_stop(self, model: nn.Module, step: int) -> bool:
        """Whether the probe ends now. Where it breaks refusals and goes on, modules are measured."""
        self.last_step = step
        if step >= self._last:
            return True
        if step % _FIRST_CHECK or (step // _FIRST_CHECK).bit_count() > 1:
            return False
        training = model.training
        model.eval()
        drift = self._refusal_drift(model)
        if drift >= self._probe.stop_at_drift:
            return True
        if drift >= BREAK and not self._broken:
            self._broken = True
            self._last = min(self._last, 2 * step)
            if self.attribute is not None and isinstance(model, PeftModel):
                self.at_break = self.attribute(model, self._proxy)
        model.train(training)
        return False
