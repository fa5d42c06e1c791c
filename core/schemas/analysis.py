"""How the robustness of modules is measured: the analysis that module-wise learning rates rest on.

Covers: the closed union of perturbations, proxies, what is moved together, and how the robust set is searched. Not
here: what they do (core.robustness), strategies (core.schemas.strategy). Method: arXiv 2410.04524. Sizes and budgets
are this project's choice: the paper's are not public.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.schemas.base import Frozen

Proxy = Literal["refusal_drift", "feature_drift"]
SearchOrder = Literal["drift", "drift_per_task_gain"]
UnitKind = Literal["module", "circuit", "type", "band", "type_band"]


class NoisePerturbation(Frozen):
    """Adds Gaussian noise to a module's weight."""

    kind: Literal["noise"] = "noise"
    """Random change."""
    relative_norm: float = Field(default=0.3, gt=0, le=10)
    """Frobenius norm of the noise as a share of the weight's own."""
    seeds: int = Field(default=3, ge=1, le=32)
    """Draws per module; mean and spread are reported."""


class _Probe(Frozen):
    """A throw-away adapter tuned on the job's own data, at the job's standard rate for every module."""

    steps: int = Field(default=40, ge=1, le=10_000)
    """Optimizer steps of the probe at most; never more than the job's own."""
    stop_at_drift: float = Field(default=4.0, gt=0)
    """The probe stops where moving everything drifts the refusals by so much (nats per token): all is broken then, and
    what comes after it tells modules apart no better. Looked at every tenth step."""
    update_scale: float = Field(default=1.0, ge=1, le=10)
    """For the search, a set's update is moved alone, and so many times as large at least."""
    scale_until_drift: float = Field(default=1.0, ge=0)
    """It is stretched further, ten times at most, until moving everything so drifts the refusals by so much (nats per
    token): the search reads sets where the whole breaks, however short the probe or low the rate. 0 leaves it at
    `stretch`."""
    seeds: int = Field(default=1, ge=1, le=8)
    """Probes with their own order of rows; mean and spread are reported."""


class SwapPerturbation(_Probe):
    """Moves the update of a module, or of a group, between probe and base, and reads each state: exact, many passes."""

    kind: Literal["swap"] = "swap"
    """The change that training really makes."""


class GradientPerturbation(_Probe):
    """Attributes the probe's drift to all modules at once: integrated gradients on the way from the base to the probe.

    The figures of all modules add up to the joint ones, up to the error of the quadrature (Sundararajan et al. 2017).
    """

    kind: Literal["gradient"] = "gradient"
    """The same change, to first order along its path."""
    points: int = Field(default=3, ge=1, le=64)
    """Points of the Gauss-Legendre quadrature; each costs a forward and a backward pass."""


Perturbation = Annotated[NoisePerturbation | SwapPerturbation | GradientPerturbation, Field(discriminator="kind")]


class AnalysisSpec(Frozen):
    """How the robustness of modules is measured, and how the robust subset is searched."""

    perturbation: Perturbation = GradientPerturbation()
    """How a module is changed."""
    proxy: Proxy = "refusal_drift"
    """Which security proxy orders the modules and bounds the search; both are reported."""
    unit: UnitKind = "circuit"
    """What enters the robust set together: single modules; a circuit in all layers (q and k, v and o, the maps of the
    MLP), which acts as one; a type in all layers; a band of layers; a type in a band."""
    bands: int = Field(default=3, ge=1, le=64)
    """Depth bands of equal height; never more than the model has layers."""
    order: SearchOrder = "drift_per_task_gain"
    """Units enter the robust set by least drift in the map, or by least drift for what they give the task. Where they
    are few, as circuits are, next is the one with which the set moved so far drifts least."""
    budget: float = Field(default=0.35, gt=0, le=1)
    """The robust set may move the proxy by this share of what moving every module at once does."""
    parameter_share: float | None = Field(default=None, gt=0, le=1)
    """Instead of `budget`: the robust set grows, in the same order, to this share of the parameters."""
    probes: int = Field(default=48, ge=8, le=512)
    """Harmful prompts that features and refusals are read from, and as many benign ones."""
    rows: int = Field(default=24, ge=1, le=1024)
    """Rows of the job's data that the task gain is read from."""
    min_auroc: float = Field(default=0.9, ge=0.5, le=1)
    """Below this the base model shows no security feature, and the map would mean nothing."""
    on_no_signal: Literal["fail", "uniform"] = "fail"
    """What to do then: end the job with the code `no_security_feature`, or train every module at the standard rate."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides noise, the probe's order of rows, and the classifier's split."""
