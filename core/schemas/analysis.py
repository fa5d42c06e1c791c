"""How the robustness of modules is measured: the analysis that module-wise learning rates rest on.

Covers: perturbations, security proxies, units, and the search for the robust set. Not here: what they do
(core.robustness), strategies (core.schemas.strategy). Method: arXiv 2410.04524. Sizes and budgets are this
project's choice: the paper's are not public.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.schemas.base import Frozen

Proxy = Literal["refusal_drift", "feature_drift"]
SearchOrder = Literal["drift", "drift_per_task_gain"]
UnitKind = Literal["module", "circuit", "type", "band", "type_band"]
CIRCUITS = {"q": "qk", "k": "qk", "v": "ov", "o": "ov"} | dict.fromkeys(
    ("gate", "up", "down", "shared_gate", "shared_up", "shared_down"), "mlp"
)
"""Circuit of each module type. Any other type, such as a router of experts, is its own circuit."""
PROBE_ROWS = 12
"""Maximum number of rows per step of a single probe. Steps of 32 rows do not separate circuits better
(research/experiments/README.md)."""


SHARED_PROBE_ROWS = 4
"""The same for each of several probes, whose mean is the map. Maps of fewer rows agree as well with each other
(docs/decisions/0042)."""


class NoisePerturbation(Frozen):
    """Adds Gaussian noise to a module's weight."""

    kind: Literal["noise"] = "noise"
    """Kind of perturbation: Gaussian noise."""
    relative_norm: float = Field(default=0.3, gt=0, le=10)
    """Frobenius norm of the noise as a share of the weight's norm, above 0 and at most 10."""
    seeds: int = Field(default=3, ge=1, le=32)
    """Number of draws per module, 1 to 32; mean and spread are reported."""


class ProbeSpec(Frozen):
    """A temporary adapter that is trained on the job's own data, at the job's standard rate for every module."""

    steps: int = Field(default=40, ge=1, le=10_000)
    """Largest number of optimizer steps of the probe, 1 to 10,000; never more than the job's own. A probe whose
    refusal drift reaches 1 nat per token goes on for as many steps again, at most, and is measured at both points."""
    stop_at_drift: float = Field(default=4.0, gt=0)
    """The probe ends once refusal drift with all updates applied reaches this value, in nats per token. Refusals
    are broken then, and further training does not separate modules better. Checked after 5, 10, 20, 40, ... steps."""
    update_scale: float = Field(default=1.0, ge=1, le=10)
    """Smallest factor on a set's update in the search, which applies the update of the set alone; 1 to 10."""
    scale_until_drift: float = Field(default=1.0, ge=0)
    """The factor grows, up to 10, until refusal drift with all updates applied reaches this value, in nats per
    token. So the search works where refusals break, even if the probe is short or the rate is low. 0 keeps
    `update_scale`."""
    seeds: int = Field(default=1, ge=1, le=8)
    """Number of probes, each with its own order of rows, 1 to 8; mean, spread and agreement are reported. A step has
    at most 12 rows with one probe, and at most 4 with several."""

    @property
    def step_rows(self) -> int:
        """Maximum number of rows per step."""
        return PROBE_ROWS if self.seeds == 1 else SHARED_PROBE_ROWS


class SwapPerturbation(ProbeSpec):
    """Applies the probe's update to one module or group at a time and measures each state. Exact, but needs many
    passes."""

    kind: Literal["swap"] = "swap"
    """Kind of perturbation: the update of a probe, one module or group at a time."""


class GradientPerturbation(ProbeSpec):
    """Attributes the probe's drift to all modules at once, by integrated gradients from the base to the probe.

    The figures of all modules add up to the joint figures, up to the quadrature error (Sundararajan et al. 2017). Up to
    three probes share the prompts and rows, so that more probes do not take more measurements.
    """

    kind: Literal["gradient"] = "gradient"
    """Kind of perturbation: the update of a probe, to first order along its path."""
    seeds: int = Field(default=2, ge=1, le=8)
    """Number of probes, each with its own order of rows, 1 to 8; mean, spread and agreement are reported. A step has
    at most 12 rows with one probe, and at most 4 with several."""
    points: int = Field(default=2, ge=1, le=64)
    """Number of points of the Gauss-Legendre quadrature, 1 to 64; each costs a forward and a backward pass."""


Perturbation = Annotated[NoisePerturbation | SwapPerturbation | GradientPerturbation, Field(discriminator="kind")]


class AnalysisSpec(Frozen):
    """How the robustness of modules is measured, and how the robust subset is searched."""

    perturbation: Perturbation = GradientPerturbation()
    """How the weights of a module are changed to measure its effect."""
    proxy: Proxy = "refusal_drift"
    """The security measure that ranks modules and bounds the search: drift of refusals or of features. Both are
    reported."""
    unit: UnitKind = "circuit"
    """What enters the robust set together: a single module; a circuit in all layers (q and k, v and o, or the MLP);
    a type in all layers; a band of layers; or a type in a band."""
    bands: int = Field(default=3, ge=1, le=64)
    """Number of depth bands of equal height, 1 to 64; never more than the model has layers."""
    order: SearchOrder = "drift_per_task_gain"
    """Units enter the robust set in order of least drift, or of least drift per task gain. If there are few units,
    such as circuits, each next unit is the one with which the set drifts least."""
    budget: float = Field(default=0.35, gt=0, le=1)
    """Largest drift of the robust set, as a share of the drift of all modules together, above 0 and at most 1."""
    parameter_share: float | None = Field(default=None, gt=0, le=1)
    """Replaces `budget`: the robust set grows, in the same order, to this share of the parameters, above 0 and at
    most 1."""
    probes: int = Field(default=48, ge=8, le=512)
    """Number of harmful prompts that features and refusals are measured on, and of benign prompts, 8 to 512."""
    rows: int = Field(default=24, ge=1, le=1024)
    """Number of rows of the job's data that the task gain is measured on, 1 to 1024."""
    min_auroc: float = Field(default=0.9, ge=0.5, le=1)
    """Smallest AUROC of the harmful-prompt classifier, 0.5 to 1. Below it the base model has no usable security
    feature."""
    on_no_signal: Literal["fail", "uniform"] = "fail"
    """What happens below `min_auroc`: the job fails with `no_security_feature`, or every module gets the standard
    rate."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the noise, the probe's order of rows and the classifier's split."""

    @property
    def size(self) -> int:
        """Number of prompts and rows that one measurement reads."""
        return self.probes + self.rows
