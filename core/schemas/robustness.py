"""Results of a robustness analysis: the map, and how the robust modules were selected.

Not here: how they are computed (core.robustness), options (core.schemas.analysis).
"""

from typing import Literal

from pydantic import model_validator

from core.schemas.analysis import AnalysisSpec, UnitKind
from core.schemas.base import Frozen
from core.schemas.upgrade import upgrade

SearchPhase = Literal["all", "binary_search", "local_pass", "parameter_share"]
Compared = Literal["seeds", "halves", "break_and_end"]
MeasuredAt = Literal["break", "end"]


class Classifier(Frozen):
    """The classifier of harmful and safe prompts on the base model's hidden states (arXiv 2410.04524, section on
    security features).
    """

    layer: int
    """Layer whose output is classified; 0 is the embedding."""
    accuracy: float
    """Accuracy on held-out prompts, 0 to 1."""
    auroc: float
    """Area under the ROC curve on held-out prompts, 0 to 1."""
    n_train: int
    """Number of prompts that it was fitted on."""
    n_test: int
    """Number of held-out prompts that it was tested on."""


class ModuleRobustness(Frozen):
    """The effect of perturbing one module on security and on the task. A higher drift means a more fragile module."""

    module: str
    """Full name of the module in the model."""
    layer: int
    """Number of its decoder layer, from 0."""
    type: str
    """Type of the module: `q`, `k`, `v`, `o`, `gate`, `up`, `down`, or a name specific to the architecture."""
    parameters: int
    """Number of parameters of its weight."""
    feature_drift: float
    """Shift of harmful prompts along the base classifier's direction, in distances between the class means."""
    refusal_drift: float
    """Increase of the negative log-likelihood of the base model's own first answer tokens, nats per token."""
    task_gain: float
    """Decrease of the loss on probe rows of the job's own data, nats per token."""
    feature_drift_spread: float
    """Standard deviation of the feature drift over seeds; 0 with one seed."""
    refusal_drift_spread: float
    """Standard deviation of the refusal drift over seeds; 0 with one seed."""


class GroupRobustness(Frozen):
    """The effect of perturbing several modules at once: a circuit or a type in all layers, a band of layers, or a type
    in a band.
    """

    kind: UnitKind
    """What the modules of the group have in common."""
    name: str
    """Name of the group, such as `qk`, `q`, `layers 0-1`, or `q, layers 0-1`."""
    modules: int
    """Number of modules in the group."""
    parameters: int
    """Number of parameters of their weights together."""
    feature_drift: float
    """Feature drift with the whole group perturbed, in the unit of a module's."""
    refusal_drift: float
    """Refusal drift with the whole group perturbed, nats per token."""
    task_gain: float
    """Task gain with the whole group perturbed, nats per token."""
    feature_drift_spread: float
    """Standard deviation of the feature drift over seeds; 0 with one seed."""
    refusal_drift_spread: float
    """Standard deviation of the refusal drift over seeds; 0 with one seed."""


class RobustCount(Frozen):
    """How many modules of a circuit, a type or a band of layers are robust."""

    kind: Literal["circuit", "type", "band"]
    """What the counted modules have in common."""
    name: str
    """Name of the circuit, type or band."""
    robust: int
    """Number of robust modules in the group."""
    modules: int
    """Number of all modules in the group."""


class SearchStep(Frozen):
    """One step of the search: a set of modules perturbed together."""

    phase: SearchPhase
    """The phase of the search that evaluated the set."""
    size: int
    """Number of modules in the set."""
    added: str | None
    """The module or group that the local pass tried to add; null in other phases."""
    drift: float
    """Joint drift of the set. With a probe, only the set's part of the update is applied, at the update scale."""
    limit: float
    """The largest drift that the search accepts, in the unit of `drift`."""
    accepted: bool
    """Whether the drift of the set is within the limit."""


class MapStability(Frozen):
    """How far two maps of the same modules agree, by the drift of the proxy that ranks modules."""

    between: Compared
    """The two maps: of one half of the seeds and of the other; from one half of the probe prompts and of the rows and
    from the other; or where refusals broke and at the end of the probe. Probes of `gradient` share the prompts and
    rows, so seeds differ in them as well."""
    at: MeasuredAt
    """When the maps were measured: where the probes broke refusals (1 nat per token of refusal drift), or at their end.
    The robustness map itself is measured at the end, which may be the break if a probe has no steps left."""
    modules: int
    """Number of modules that both maps rank."""
    spearman: float
    """Spearman's rank correlation of the drifts, -1 to 1; 0 by chance."""
    p_value: float
    """Probability of at least this correlation if the rankings are unrelated, 0 to 1 (one-sided)."""
    overlap: float
    """Share of the more robust half of the modules in one map that is in the more robust half of the other, 0 to 1."""
    overlap_by_chance: float
    """Expected overlap if the rankings are unrelated, 0 to 1."""
    task_gain_spearman: float | None = None
    """Spearman's rank correlation of the task gains, -1 to 1; null if they were not measured in both maps."""


class RobustnessResult(Frozen):
    """The robustness map and the set of robust modules."""

    analysis: AnalysisSpec
    """The options of the analysis."""
    classifier: Classifier
    """The classifier that feature drift is measured with."""
    usable: bool
    """Whether the classifier separates harmful from safe prompts. If false, `robust` contains every module."""
    modules: tuple[ModuleRobustness, ...]
    """The map: one entry for each module, in the model's order."""
    groups: tuple[GroupRobustness, ...] = ()
    """The same for circuits, types, bands of layers, and types in a band, each perturbed as one."""
    joint_feature_drift: float
    """Feature drift with all modules perturbed, for the first seed."""
    joint_refusal_drift: float
    """Refusal drift with all modules perturbed, for the first seed, nats per token."""
    joint_task_gain: float
    """Task gain with all modules perturbed, for the first seed, nats per token."""
    stability: tuple[MapStability, ...] = ()
    """How far the map agrees with itself over seeds, halves of the data and time; empty if that was not measured, such
    as for a model with few modules."""
    probe_steps: tuple[int, ...] = ()
    """Number of training steps of the probe, for each seed; empty for noise perturbations."""
    update_scale: float = 1.0
    """Factor on the probe's update during the search; 1 for noise perturbations."""
    order: tuple[str, ...]
    """Names of modules, or of groups if the analysis selects groups, from most to least robust."""
    robust: tuple[str, ...]
    """Full names of the robust modules, which are trained at the standard learning rate."""
    chosen: tuple[RobustCount, ...] = ()
    """Number of robust modules by circuit, type and band of layers."""
    trace: tuple[SearchStep, ...]
    """All steps of the search, in order."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade(document) if isinstance(document, dict) else document
