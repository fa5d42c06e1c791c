"""The repair of trained weights that the gate withholds. Not here: how a job does it (core.schemas.strategy)."""

from typing import Self

from pydantic import Field, model_validator

from core.schemas.base import Frozen
from core.schemas.safeguards import MAX_REFUSAL_DRIFT, Safeguards, SafetyMix, ScaleUpdate
from core.schemas.strategy import RepairStrategy


class RepairRequest(Frozen):
    """How a withheld adapter is repaired. Every field is optional; each way is a run, and at least one is left."""

    scale: bool = True
    """Whether the trained update is scaled down, without training, to the largest factor with which refusals stay close
    to the base model's."""
    steps: int = Field(default=20, ge=0, le=1000)
    """Number of further steps on the job's rows and as many refusals of the base model, 0 to 1000; 0 for none."""
    max_refusal_drift: float = Field(default=MAX_REFUSAL_DRIFT, ge=0, le=100)
    """Largest refusal drift of a scaled update, in nats per token, 0 to 100."""

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if not self.scale and not self.steps:
            raise ValueError("nothing is left to try: set scale, or steps")
        return self

    @property
    def runs(self) -> tuple[RepairStrategy, ...]:
        """The runs of the repair. Steps are followed by scaling, which does nothing where they were enough."""
        scale = ScaleUpdate(max_refusal_drift=self.max_refusal_drift)
        scaled = RepairStrategy(label="scaled", steps=0, safeguards=Safeguards(scale))
        if not self.steps:
            return (scaled,)
        guards = (SafetyMix(share=0.5), scale) if self.scale else (SafetyMix(share=0.5),)
        trained = RepairStrategy(label="retrained", steps=self.steps, safeguards=Safeguards(*guards))
        return (trained, scaled) if self.scale else (trained,)
