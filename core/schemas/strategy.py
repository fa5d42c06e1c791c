"""How learning rates are given to modules, and which safeguards go with them: one strategy is one arm of a job.

Covers: the closed union of strategies, what an arm is called. Not here: the analysis they rest on
(core.schemas.analysis), safeguards' options (core.schemas.safeguards), what strategies do (core.training.strategies).
Method: arXiv 2410.04524. Ratios, shares and ranges are this project's choice: the paper's are not public.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.schemas.analysis import AnalysisSpec
from core.schemas.base import Frozen
from core.schemas.safeguards import Safeguards

Label = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")]
FullName = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[\w.\[\]-]+$")]


class UniformStrategy(Frozen):
    """Every module gets the standard learning rate: ordinary fine-tuning."""

    kind: Literal["uniform"] = "uniform"
    """Ordinary fine-tuning."""
    label: Label = "uniform"
    """Name of this arm in figures and reports."""
    safeguards: Safeguards = Safeguards()
    """What is added to it."""


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
    safeguards: Safeguards = Safeguards()
    """What is added to it."""


class MlLrContinuousStrategy(Frozen):
    """ML-LR without a border: each module's rate falls with its own drift in the robustness map."""

    kind: Literal["ml_lr_continuous"] = "ml_lr_continuous"
    """Module-wise learning rates, from each module's drift."""
    label: Label = "ml_lr_continuous"
    """Name of this arm in figures and reports."""
    ratio: float = Field(default=0.1, gt=0, le=1)
    """Factor on the rate of the most fragile module; modules that cost no security get 1, all others lie between."""
    analysis: AnalysisSpec = AnalysisSpec()
    """How robustness is measured; its proxy says which drift counts."""
    safeguards: Safeguards = Safeguards()
    """What is added to it."""


class SwatStrategy(Frozen):
    """SWAT: robust modules are warmed up alone, then all are trained at the standard rate (arXiv 2410.04524, v2)."""

    kind: Literal["swat"] = "swat"
    """Security-aware warm-up."""
    label: Label = "swat"
    """Name of this arm in figures and reports."""
    warmup_ratio: float = Field(default=0.3, gt=0, le=1)
    """Share of the steps that are the warm-up."""
    ratio: float = Field(default=0.0, ge=0, le=1)
    """Factor on the rate of modules that are not robust, in the warm-up; 0 freezes them until it is over."""
    analysis: AnalysisSpec = AnalysisSpec()
    """How robustness is measured."""
    safeguards: Safeguards = Safeguards()
    """What is added to it."""


class LayerNumbers(Frozen):
    """Decoder layers by number."""

    kind: Literal["numbers"] = "numbers"
    """By number."""
    first: int = Field(ge=0, le=100_000)
    """First layer, counted from 0."""
    last: int = Field(ge=0, le=100_000)
    """Last layer, itself included."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("last lies before first")
        return self


class LayerShares(Frozen):
    """Decoder layers by depth: those whose middle lies between two shares of the depth."""

    kind: Literal["shares"] = "shares"
    """By depth."""
    first: float = Field(default=0.2, ge=0, le=1)
    """Where the range begins: 0 is before the first layer."""
    last: float = Field(default=0.5, ge=0, le=1)
    """Where it ends: 1 is behind the last layer."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last <= self.first:
            raise ValueError("last does not lie behind first")
        return self


class FreezeLayersStrategy(Frozen):
    """A range of layers is not trained, all others get the standard rate (after SPPFT, Li et al. 2024).

    No analysis is made: the layers are named. Published safety layers are a run of early to middle layers, which
    differs from model to model; the default range is a guess at it.
    """

    kind: Literal["freeze_layers"] = "freeze_layers"
    """Freezes a range of layers."""
    label: Label = "freeze_layers"
    """Name of this arm in figures and reports."""
    layers: LayerNumbers | LayerShares = Field(default=LayerShares(), discriminator="kind")
    """Which layers are frozen."""
    safeguards: Safeguards = Safeguards()
    """What is added to it."""


class ModulesStrategy(Frozen):
    """Like ML-LR with a robust set that is given by hand: for controls, such as a random set or the inverse one."""

    kind: Literal["modules"] = "modules"
    """Module-wise learning rates, for a named set."""
    label: Label
    """Name of this arm in figures and reports."""
    full_rate: tuple[FullName, ...] = Field(max_length=100_000, examples=[["model.layers.0.self_attn.q_proj"]])
    """Modules that get the standard rate, by their full names; the robustness map of any job lists them."""
    ratio: float = Field(default=0.1, ge=0, le=1)
    """Factor on the rate of all others; 0 freezes them."""
    safeguards: Safeguards = Safeguards()
    """What is added to it."""


Strategy = Annotated[
    UniformStrategy | MlLrStrategy | MlLrContinuousStrategy | SwatStrategy | FreezeLayersStrategy | ModulesStrategy,
    Field(discriminator="kind"),
]
Mapped = MlLrStrategy | MlLrContinuousStrategy | SwatStrategy
"""Strategies that rest on a robustness map."""


def analysis_of(strategy: Strategy) -> AnalysisSpec | None:
    """The analysis that a strategy needs, if it needs one."""
    return strategy.analysis if isinstance(strategy, Mapped) else None


def title(strategy: Strategy) -> str:
    """What an arm is, in a few words: its kind and its safeguards, and its label first where it has one of its own."""
    whole = " + ".join((strategy.kind, *strategy.safeguards.titles))
    return whole if strategy.label == strategy.kind else f"{strategy.label}: {whole}"
