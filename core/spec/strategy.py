"""How learning rates are given to modules.

Covers: the closed union of strategies. Not here: the analysis they rest on (core.spec.analysis), what they do
(core.training.strategies). Method: arXiv 2410.04524. Ratios are this project's choice: the paper's are not public.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.spec.analysis import AnalysisSpec
from core.spec.base import Frozen

Label = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")]


class UniformStrategy(Frozen):
    """Every module gets the standard learning rate: ordinary fine-tuning."""

    kind: Literal["uniform"] = "uniform"
    """Ordinary fine-tuning."""
    label: Label = "uniform"
    """Name of this arm in figures and reports."""


class MlLrStrategy(Frozen):
    """ML-LR: robust modules get the standard learning rate, all others a smaller one."""

    kind: Literal["ml_lr"] = "ml_lr"
    """Module-wise learning rates."""
    label: Label = "ml_lr"
    """Name of this arm in figures and reports."""
    ratio: float = Field(default=0.1, ge=0, le=1)
    """Factor on the rate of modules that are not robust; 0 freezes them."""
    analysis: AnalysisSpec = AnalysisSpec()
    """How robustness is measured."""


Strategy = Annotated[UniformStrategy | MlLrStrategy, Field(discriminator="kind")]
