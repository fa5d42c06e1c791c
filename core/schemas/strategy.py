"""Strategies: how learning rates are assigned to modules. A strategy with its safeguards is one run of a job.

Covers: the closed union of strategies, titles of runs. Not here: the analysis that some strategies need
(core.schemas.analysis), options of safeguards (core.schemas.safeguards), what strategies do (core.training.strategies).
Method: arXiv 2410.04524. Ratios, shares and ranges are this project's choice, because the paper's are not public.
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from core.schemas.analysis import AnalysisSpec
from core.schemas.base import Frozen
from core.schemas.safeguards import KlToBase, Safeguards

Label = Annotated[
    str,
    Field(
        min_length=1,
        max_length=40,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Name of this run in figures and reports; unique within the job.",
    ),
]
RunSafeguards = Annotated[Safeguards, Field(description="Safeguards that this run is combined with.")]
FullName = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[\w.\[\]-]+$")]


class UniformStrategy(Frozen):
    """Every module gets the standard learning rate: ordinary fine-tuning."""

    kind: Literal["uniform"] = "uniform"
    """Selects ordinary fine-tuning at one learning rate."""
    label: Label = "uniform"
    safeguards: RunSafeguards = Safeguards()


class MlLrStrategy(Frozen):
    """ML-LR: robust modules get the standard learning rate, all others a smaller one."""

    kind: Literal["ml_lr"] = "ml_lr"
    """Selects module-wise learning rates with two levels."""
    label: Label = "ml_lr"
    ratio: float = Field(default=0.1, ge=0, le=1)
    """Factor on the learning rate of modules that are not robust, 0 to 1; 0 freezes them."""
    analysis: AnalysisSpec = AnalysisSpec()
    """Options of the robustness analysis that selects the robust modules."""
    safeguards: RunSafeguards = Safeguards()


class MlLrContinuousStrategy(Frozen):
    """ML-LR without a threshold: each module's learning rate decreases with its drift in the robustness map."""

    kind: Literal["ml_lr_continuous"] = "ml_lr_continuous"
    """Selects module-wise learning rates that depend on each module's drift."""
    label: Label = "ml_lr_continuous"
    ratio: float = Field(default=0.1, gt=0, le=1)
    """Factor on the learning rate of the most fragile module, above 0 and at most 1. Modules without drift get 1, and
    all others a factor in between."""
    analysis: AnalysisSpec = AnalysisSpec()
    """Options of the robustness analysis. Its proxy selects which drift is used."""
    safeguards: RunSafeguards = Safeguards()


class SwatStrategy(Frozen):
    """SWAT: robust modules are trained alone in a warm-up, then all modules at the standard rate (arXiv 2410.04524,
    v2).
    """

    kind: Literal["swat"] = "swat"
    """Selects security-aware warm-up training."""
    label: Label = "swat"
    warmup_ratio: float = Field(default=0.3, gt=0, le=1)
    """Share of the training steps that belong to the warm-up, above 0 and at most 1."""
    ratio: float = Field(default=0.0, ge=0, le=1)
    """Factor on the learning rate of modules that are not robust during the warm-up, 0 to 1; 0 freezes them."""
    analysis: AnalysisSpec = AnalysisSpec()
    """Options of the robustness analysis that selects the robust modules."""
    safeguards: RunSafeguards = Safeguards()


class LayerNumbers(Frozen):
    """A range of decoder layers, by number."""

    kind: Literal["numbers"] = "numbers"
    """Selects layers by their numbers."""
    first: int = Field(ge=0, le=100_000)
    """Number of the first layer in the range, from 0."""
    last: int = Field(ge=0, le=100_000)
    """Number of the last layer in the range, which belongs to the range."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("last must not be less than first")
        return self


class LayerShares(Frozen):
    """A range of decoder layers, by relative depth: layers whose middle is between two shares of the depth."""

    kind: Literal["shares"] = "shares"
    """Selects layers by their relative depth."""
    first: float = Field(default=0.2, ge=0, le=1)
    """Relative depth at which the range starts, 0 to 1; 0 is before the first layer."""
    last: float = Field(default=0.5, ge=0, le=1)
    """Relative depth at which the range ends, 0 to 1; 1 is after the last layer."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last <= self.first:
            raise ValueError("last must be greater than first")
        return self


class FreezeLayersStrategy(Frozen):
    """A range of layers is frozen, and all other layers get the standard learning rate (after SPPFT, Li et al. 2024).

    No analysis is made: the job names the layers. Published safety layers are consecutive early to middle layers, and
    they differ between models. The default range is an estimate.
    """

    kind: Literal["freeze_layers"] = "freeze_layers"
    """Selects training with a range of frozen layers."""
    label: Label = "freeze_layers"
    layers: LayerNumbers | LayerShares = Field(default=LayerShares(), discriminator="kind")
    """The range of layers that is frozen."""
    safeguards: RunSafeguards = Safeguards()


class ModulesStrategy(Frozen):
    """ML-LR with a given set of modules: for controls, such as a random set or the complement of the robust set."""

    kind: Literal["modules"] = "modules"
    """Selects module-wise learning rates with a given set of modules."""
    label: Label
    full_rate: tuple[FullName, ...] = Field(max_length=100_000, examples=[["model.layers.0.self_attn.q_proj"]])
    """Full names of the modules that get the standard rate. The robustness map of any job lists the names."""
    ratio: float = Field(default=0.1, ge=0, le=1)
    """Factor on the learning rate of all other modules, 0 to 1; 0 freezes them."""
    safeguards: RunSafeguards = Safeguards()


class RepairStrategy(Frozen):
    """Begins with the weights that another job trained: trains a few more steps, or none, and applies safeguards.

    Only in a job that names the other job in `repairs`.
    """

    kind: Literal["repair"] = "repair"
    """Selects the repair of trained weights."""
    label: Label = "repair"
    steps: int = Field(ge=0, le=1000)
    """Number of further optimizer steps, 0 to 1000, at the job's learning rate for every module. With 0, only
    safeguards that change trained weights have an effect."""
    safeguards: RunSafeguards = Safeguards()


Strategy = Annotated[
    UniformStrategy
    | MlLrStrategy
    | MlLrContinuousStrategy
    | SwatStrategy
    | FreezeLayersStrategy
    | ModulesStrategy
    | RepairStrategy,
    Field(discriminator="kind"),
]
RECOMMENDED: Strategy = UniformStrategy(label="recommended", safeguards=Safeguards(KlToBase(on_too_few="skip")))
"""What is recommended: one rate, and a penalty that keeps the base model's refusals and safe answers as they are.
See docs/strategies-and-safeguards.md."""


def _read(order: object) -> object:
    if not isinstance(order, str):
        return order
    if order == "recommended":
        return RECOMMENDED
    raise ValueError(f"{order!r} is no strategy: give `recommended`, or an object with a `kind`")


OrderedStrategy = Annotated[
    Strategy, BeforeValidator(_read, json_schema_input_type=Annotated[Literal["recommended"] | Strategy, Field()])
]
"""A strategy in an order, which may be the word `recommended`. A stored order has the strategy that it meant."""
Mapped = MlLrStrategy | MlLrContinuousStrategy | SwatStrategy
"""Strategies that need a robustness map."""


def analysis_of(strategy: Strategy) -> AnalysisSpec | None:
    """The analysis that a strategy needs; None if it needs none."""
    return strategy.analysis if isinstance(strategy, Mapped) else None


def title(strategy: Strategy) -> str:
    """What a run is, in a few words: the kind of its strategy and its safeguards, after its label if that differs."""
    whole = " + ".join((strategy.kind, *strategy.safeguards.titles))
    return whole if strategy.label == strategy.kind else f"{strategy.label}: {whole}"
