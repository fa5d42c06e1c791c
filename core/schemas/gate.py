"""What the gate decided about a run, why, and who overrode it.

Covers: outcomes, checks, reasons, overrides. Not here: the rules (core.schemas.policy), deciding (core.gate).
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from core.schemas.base import Frozen
from core.schemas.measure import Measured
from core.schemas.metrics import Metric

GateOutcome = Literal["released", "quarantined", "undecided"]
"""`released`: the figures show that every rule is met. `quarantined`: a rule failed. `undecided`: the evaluation is
not sufficient for a decision, which says nothing about the adapter's safety."""
RuleName = Literal["max_rate", "max_increase", "max_value", "min_value"]


class GateCheck(Frozen):
    """One figure compared with one bound of the policy."""

    suite: str
    """Name of the attack family, `over_refusal`, `task` or the benchmark that was evaluated."""
    metric: Metric
    """Name of the metric that the bound applies to."""
    judge: str
    """Name of the judge that decided on the answers; `none` for metrics that need no judge."""
    rule: RuleName
    """`max_rate` bounds the rate, `max_increase` its increase over the base model; `max_value` and `min_value` bound a
    task figure."""
    bound: float | None = None
    """The bound, in the unit of the metric (rates are 0 to 1); null if there is no figure to compare with it."""
    value: float | None = None
    """The figure, or its increase over the base model, in the unit of the metric; null if it was not measured."""
    low: float | None = None
    """Lower limit of the value's 95 % confidence interval; null if it was not measured."""
    high: float | None = None
    """Upper limit of the value's 95 % confidence interval; null if it was not measured."""
    n: int = 0
    """Number of decided answers that the value is computed from."""
    passed: bool | None
    """Whether the confidence limit on the unsafe side meets the bound; null if the evaluation is not sufficient."""

    @property
    def key(self) -> tuple[str, Metric, str, RuleName]:
        """What is compared: the figure and the kind of bound."""
        return self.suite, self.metric, self.judge, self.rule

    def is_as_strict_as(self, other: "GateCheck") -> bool:
        """Whether this check of the same figure has as many answers and as strict a bound, and is met if `other` was
        decided."""
        if self.n < other.n or (other.passed is not None and self.passed is not True):
            return False
        if other.bound is None or self.bound is None:
            return other.bound is None
        return self.bound >= other.bound if self.rule == "min_value" else self.bound <= other.bound


class GateReason(Frozen):
    """Why an adapter is withheld, or a note on the decision."""

    code: str
    """Stable code for programs. Failed rules: `attack_success_too_high`, `attack_success_rise`,
    `over_refusal_too_high`, `over_refusal_rise`, `task_too_low`. Undecided: `suite_missing`, `judge_missing`,
    `too_few_answers`, `too_many_undecided`, `figure_missing`, `less_than_pinned`, `prompts_trained_on`,
    `only_increase_judged`, `newly_thinking`. Another job's decision: `weights_quarantined`. Notes:
    `base_over_threshold`."""
    message: str
    """The same for people, with the figure, its confidence interval, n and the bound."""


class GateDecision(Frozen):
    """The gate's decision about one run."""

    run: str
    """Label of the run."""
    outcome: GateOutcome
    """What was decided: `released`, `quarantined` or `undecided`; only a released adapter can be downloaded."""
    reasons: tuple[GateReason, ...]
    """Every rule that failed or could not be decided, failures first; empty if the run is released."""
    notes: tuple[GateReason, ...] = ()
    """Notes that do not affect the outcome, such as a bound that the base model itself exceeds."""
    checks: tuple[GateCheck, ...]
    """Every comparison of a figure with a bound."""
    policy_version: int
    """Version of the project's policy that was applied, from 1; 0 is the built-in policy."""
    measured: Measured | None = None
    """How the run was measured; null for decisions of versions that did not record it."""

    def lifts(self, quarantine: "GateDecision") -> bool:
        """Whether this release is at least as strict as a quarantine of the same weights, and so replaces it.

        Everything that the quarantine measured must have been measured again, and each of its checks must be met here
        with as many answers and as strict a bound.
        """
        if self.outcome != "released" or self.measured is None:
            return False
        if quarantine.measured is None or not self.measured.covers(quarantine.measured):
            return False
        checks = {check.key: check for check in self.checks}
        pairs = [(checks.get(check.key), check) for check in quarantine.checks]
        return all(mine is not None and mine.is_as_strict_as(check) for mine, check in pairs)


class OverrideRequest(Frozen):
    """A request to make a withheld adapter available."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=2000)] = Field(
        examples=["The red team reviewed all 80 answers: case SEC-1234."]
    )
    """Why the adapter is made available, 10 to 2000 characters. It is recorded permanently with the API key's name."""


class Override(Frozen):
    """A recorded override of the gate's decision."""

    reason: str
    """Why the adapter was made available, as stated in the request."""
    key_id: str
    """Id of the API key that made the request."""
    key_name: str
    """Name of the API key that made the request."""
    outcome: GateOutcome
    """The gate's outcome that was overridden."""
    created_at: datetime
    """When the override was recorded."""


class GateReply(Frozen):
    """The gate's decision about a job's adapter, and whether the adapter is available."""

    outcome: GateOutcome
    """What the gate decided: `released`, `quarantined` or `undecided`. Also `quarantined` if another job of the project
    quarantined the same weights."""
    reasons: tuple[GateReason, ...]
    """Why the adapter is withheld; empty if it is released."""
    notes: tuple[GateReason, ...] = ()
    """Notes that do not affect the outcome, such as a bound that the base model itself exceeds."""
    policy_version: int
    """Version of the project's policy that was applied, from 1; 0 is the built-in policy."""
    available: bool
    """Whether the adapter can be downloaded now, because it was released or the gate was overridden."""
    overrides: tuple[Override, ...] = ()
    """All recorded overrides, oldest first."""
