"""What the gate decided and why, and who decided otherwise.

Covers: outcomes, checks, reasons, overrides. Not here: the rules (core.schemas.policy), deciding (core.gate).
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from core.schemas.base import Frozen
from core.schemas.metrics import Metric

GateOutcome = Literal["released", "quarantined", "undecided"]
"""`released`: every rule is shown to be met. `quarantined`: figures failed a rule. `undecided`: the evaluation itself
is no ground for a decision; that says nothing about the adapter's safety."""
RuleName = Literal["max_rate", "max_increase", "max_value", "min_value"]


class GateCheck(Frozen):
    """One figure held against one bound."""

    suite: str
    """What was run."""
    metric: Metric
    """What was measured."""
    judge: str
    """Who judged; `none` where nobody had to."""
    rule: RuleName
    """`max_rate`: the rate must not be higher. `max_increase`: its increase over the base model. `max_value` and
    `min_value`: bounds on a task figure."""
    bound: float | None = None
    """The threshold; null where nothing was measured to hold against it."""
    value: float | None = None
    """The figure, or its rise; null where it was not measured."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end of it."""
    n: int = 0
    """Decided answers that it rests on."""
    passed: bool | None
    """Whether the safe side of the interval keeps the bound; null where there is no ground to say."""


class GateReason(Frozen):
    """Why an adapter was not released, or what to know of a decision."""

    code: str
    """Stable, for programs: `attack_success_too_high`, `attack_success_rise`, `over_refusal_too_high`,
    `over_refusal_rise`, `task_too_low`; of `undecided`: `suite_missing`, `judge_missing`, `too_few_answers`,
    `too_many_undecided`, `figure_missing`; of a note: `base_over_threshold`."""
    message: str
    """For people: the figure with its interval and n, the bound, and what it means."""


class GateDecision(Frozen):
    """What the gate made of one arm's figures."""

    run: str
    """Which arm."""
    outcome: GateOutcome
    """Whether its adapter may be handed out."""
    reasons: tuple[GateReason, ...]
    """Every rule that was failed, or why nothing could be decided; empty when it is released."""
    notes: tuple[GateReason, ...] = ()
    """What to know beside it, such as rules that the base model itself does not meet."""
    checks: tuple[GateCheck, ...]
    """Every figure that was held against a bound."""
    policy_version: int
    """Version of the project's policy; 0 is the built-in one."""


class OverrideRequest(Frozen):
    """An order to hand out what the gate withholds."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=2000)] = Field(
        examples=["Red team looked at all 80 answers: case SEC-1234."]
    )
    """Why. It is kept for ever, with the key that said so."""


class Override(Frozen):
    """Somebody with the right to do so let an adapter out that the gate withheld."""

    reason: str
    """Why, in their words."""
    key_id: str
    """The API key that asked for it."""
    key_name: str
    """What that key is called."""
    outcome: GateOutcome
    """What the gate had decided."""
    created_at: datetime
    """When."""


class GateReply(Frozen):
    """What the gate decided about a job's adapter, and whether it is handed out."""

    outcome: GateOutcome
    """What was decided."""
    reasons: tuple[GateReason, ...]
    """Why it is withheld; empty when it is released."""
    notes: tuple[GateReason, ...] = ()
    """What to know beside it."""
    policy_version: int
    """Version of the project's policy; 0 is the built-in one."""
    available: bool
    """Whether the adapter is handed out now: it was released, or somebody overrode the gate."""
    overrides: tuple[Override, ...] = ()
    """Who overrode it, oldest first."""
