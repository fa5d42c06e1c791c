"""How the robustness of modules is measured: the analysis that module-wise learning rates rest on.

Covers: the closed union of perturbations, proxies, and how the robust set is searched. Not here: what they do
(core.robustness), strategies (core.spec.strategy). Method: arXiv 2410.04524. Sizes and budgets are this project's
choice: the paper's are not public.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Frozen

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
