"""How learning rates are given to modules, and the robustness analysis that ML-LR rests on.

Covers: the closed unions of strategies and perturbations. Not here: what they do (core.training.strategies,
core.robustness). Method: arXiv 2410.04524. Sizes, budgets and ratios are this project's choice: the paper's are not
public.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Frozen

Label = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")]
Proxy = Literal["refusal_drift", "feature_drift"]
SearchOrder = Literal["drift", "drift_per_task_gain"]


class NoisePerturbation(Frozen):
    """Adds Gaussian noise to one module's weight at a time."""

    kind: Literal["noise"] = "noise"
    """Random change."""
    relative_norm: float = Field(default=0.3, gt=0, le=10)
    """Frobenius norm of the noise as a share of the weight's own."""
    seeds: int = Field(default=3, ge=1, le=32)
    """Draws per module; mean and spread are reported."""


class SwapPerturbation(Frozen):
    """Tunes a throw-away probe on the job's own data, then moves one module's update between probe and base."""

    kind: Literal["swap"] = "swap"
    """The change that training really makes."""
    steps: int = Field(default=60, ge=1, le=10_000)
    """Optimizer steps of the probe, at the job's standard rate for every module; never more than the job's own."""
    seeds: int = Field(default=1, ge=1, le=8)
    """Probes with their own order of rows; mean and spread are reported."""


Perturbation = Annotated[NoisePerturbation | SwapPerturbation, Field(discriminator="kind")]


class AnalysisSpec(Frozen):
    """How the robustness of modules is measured, and how the robust subset is searched."""

    perturbation: Perturbation = SwapPerturbation()
    """How a module is changed."""
    proxy: Proxy = "refusal_drift"
    """Which security proxy orders the modules and bounds the search; both are reported."""
    order: SearchOrder = "drift_per_task_gain"
    """Modules enter the robust set by least drift, or by least drift for what they give the task."""
    budget: float = Field(default=0.05, gt=0, le=1)
    """The robust set may move the proxy by this share of what moving every module at once does."""
    probes: int = Field(default=48, ge=8, le=512)
    """Harmful prompts that features and refusals are read from, and as many benign ones."""
    min_auroc: float = Field(default=0.9, ge=0.5, le=1)
    """Below this the base model shows no security feature, and the map would mean nothing."""
    on_no_signal: Literal["fail", "uniform"] = "fail"
    """What to do then: end the job with the code `no_security_feature`, or train every module at the standard rate."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides noise, the probe's order of rows, and the classifier's split."""


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
