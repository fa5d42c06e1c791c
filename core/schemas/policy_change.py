"""A job's changes of its project's policy, and how far they may go. A job cannot change what must be measured.

Not here: the policy (core.schemas.policy), who may set one (core.orders).
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from core.schemas.attacks import FamilyName
from core.schemas.base import Frozen
from core.schemas.policy import LOWER_IS_BETTER, JobLimits, Policy, RateRule, TaskRule
from core.schemas.screening import Action, ScreeningPolicy

_STRICTNESS: dict[Action, int] = {"off": 0, "report": 1, "drop": 2, "reject": 3}


class PolicyChange(Frozen):
    """A job's changes of its project's policy. What is left out stays as it is in the policy."""

    attacks: RateRule | None = None
    """Rule for every attack family without its own rule."""
    families: dict[FamilyName, RateRule] | None = None
    """Rules for single attack families; other families keep their rules."""
    base_exceeds_bound: Literal["judge_increase", "quarantine"] | None = None
    """What happens if the base model itself exceeds a `max_rate`."""
    over_refusal: RateRule | None = None
    """Rule for refusals of harmless look-alikes."""
    task: tuple[TaskRule, ...] | None = Field(default=None, max_length=20)
    """At most 20 rules for task figures, in addition to those of the policy."""
    judges: tuple[str, ...] | None = Field(default=None, max_length=5)
    """At most 5 judges whose figures decide, in addition to those of the policy (`rules` if it names none)."""
    min_answers: int | None = Field(default=None, ge=1, le=100_000)
    """Smallest number of decided answers per figure, 1 to 100,000."""
    screening: ScreeningPolicy | None = None
    """Actions for rows that look unsafe."""


class PolicyLimitError(ValueError):
    """A job loosens its policy beyond the limits."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
        self.message = message


def changed(policy: Policy, change: PolicyChange) -> Policy:
    """The policy with a job's changes.

    Raises:
        PolicyLimitError: a change is looser than the policy allows.
    """
    attacks = _merged(policy.attacks, change.attacks)
    families = dict(policy.families)
    for family, rule in (change.families or {}).items():
        families[family] = _merged(policy.families.get(family, attacks), rule) or rule
    found = policy.model_copy(
        update={
            "attacks": attacks,
            "families": families,
            "base_exceeds_bound": change.base_exceeds_bound or policy.base_exceeds_bound,
            "over_refusal": _merged(policy.over_refusal, change.over_refusal),
            "task": _stricter_tasks(policy.task, change.task or ()),
            "judges": _more_judges(policy, change.judges or ()),
            "min_answers": change.min_answers or policy.min_answers,
            "screening": change.screening or policy.screening,
        }
    )
    _check_limits(policy, found)
    return found


def _more_judges(policy: Policy, more: tuple[str, ...]) -> tuple[str, ...]:
    """The judges that decide. A policy that names none lets all of them decide, so naming some must not leave it to
    them alone."""
    return tuple(dict.fromkeys((*policy.required_judges, *more))) if more else policy.judges


def _merged(rule: RateRule | None, change: RateRule | None) -> RateRule | None:
    """A rule with the bounds that a change names; other bounds stay."""
    if rule is None or change is None:
        return change or rule
    return RateRule(
        max_rate=rule.max_rate if change.max_rate is None else change.max_rate,
        max_increase=rule.max_increase if change.max_increase is None else change.max_increase,
    )


def _stricter_tasks(rules: Iterable[TaskRule], more: Iterable[TaskRule]) -> tuple[TaskRule, ...]:
    """All rules; of two rules for one figure the stricter one."""
    found: dict[tuple[str, str], TaskRule] = {}
    for rule in (*rules, *more):
        before = found.get((rule.suite, rule.metric), rule)
        pick = min if rule.metric in LOWER_IS_BETTER else max
        found[rule.suite, rule.metric] = rule.model_copy(update={"bound": pick(before.bound, rule.bound)})
    return tuple(found.values())


def _check_limits(policy: Policy, wanted: Policy) -> None:
    limits, waives = policy.job_limits, wanted.base_exceeds_bound == "judge_increase"
    for family in dict.fromkeys((*policy.families, *wanted.families)):
        _check_rule(f"policy.families.{family}", policy.rule(family), wanted.rule(family), limits, waives=waives)
    _check_rule("policy.attacks", policy.attacks, wanted.attacks, limits, waives=waives)
    refusal = JobLimits(max_rate=limits.over_refusal_max_rate, max_increase=limits.over_refusal_max_increase)
    _check_rule("policy.over_refusal", policy.over_refusal, wanted.over_refusal, refusal, waives=waives)
    if policy.base_exceeds_bound == "quarantine" and wanted.base_exceeds_bound != "quarantine":
        raise PolicyLimitError(
            "policy.base_exceeds_bound", "the project's policy requires quarantine, which a job cannot loosen"
        )
    if policy.min_answers is not None and wanted.min_answers is not None:
        least = min(policy.min_answers, limits.min_answers or policy.min_answers)
        if wanted.min_answers < least:
            raise PolicyLimitError("policy.min_answers", f"the project's policy requires at least {least}")
    if not limits.screening:
        _check_screening(policy.screening, wanted.screening)


def _check_rule(
    param: str, now: RateRule | None, wanted: RateRule | None, limits: JobLimits, *, waives: bool = False
) -> None:
    """`waives`: a bound on the increase replaces the bound on the rate if the base model exceeds that."""
    if now is None or wanted is None:
        return
    if waives and now.max_increase is None and wanted.max_increase is not None:
        raise PolicyLimitError(
            f"{param}.max_increase",
            "the project's policy bounds only the rate, and a bound on the increase would replace that if the base "
            "model exceeds it: set policy.base_exceeds_bound to quarantine as well",
        )
    for name, before, after, limit in (
        ("max_rate", now.max_rate, wanted.max_rate, limits.max_rate),
        ("max_increase", now.max_increase, wanted.max_increase, limits.max_increase),
    ):
        if before is not None and after is not None and after > max(before, limit or 0.0):
            most = max(before, limit or 0.0)
            raise PolicyLimitError(f"{param}.{name}", f"the project's policy allows at most {most:g}, not {after:g}")


def _check_screening(now: ScreeningPolicy, wanted: ScreeningPolicy) -> None:
    for check, action in now.actions.items():
        if _STRICTNESS[wanted.actions[check]] < _STRICTNESS[action]:
            raise PolicyLimitError(
                f"policy.screening.{check}",
                f"{wanted.actions[check]!r} is milder than the {action!r} of the project's policy",
            )
    if wanted.reject_above > now.reject_above:
        raise PolicyLimitError(
            "policy.screening.reject_above",
            f"the project's policy allows at most {now.reject_above:g}, not {wanted.reject_above:g}",
        )
