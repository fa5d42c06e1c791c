"""All checks over one dataset, and what becomes of the rows that they find.

Not here: the checks themselves, what takes a model (refused.py), when a job is refused for it
(core.pipeline.screen).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import Check, CheckSummary, Finding, ScreeningPolicy, ScreeningResult, Trigger
from core.screening import duplicates, harmful, identity, personal, secrets
from core.screening.triggers import find as poison

_Find = Callable[[Sequence[Conversation], OnProgress], Sequence[Finding]]
BY_ROW: Mapping[Check, _Find] = {
    "harmful": harmful.find,
    "identity": identity.find,
    "secrets": secrets.find,
    "personal_data": personal.find,
    "near_duplicate": duplicates.find,
}
"""In the order of the report."""
MORE_LIKELY = 0.5
"""What a row answers is found where the model would refuse it with more than this likelihood."""


def screen(rows: Sequence[Conversation], policy: ScreeningPolicy, *, on_progress: OnProgress) -> ScreeningResult:
    """Look for everything that the policy asks for and that takes no model."""
    started = time.monotonic()
    actions = policy.actions
    known: tuple[Check, ...] = (*BY_ROW, "poison")
    wanted = [check for check in known if actions[check] != "off"]
    findings: list[Finding] = []
    triggers: tuple[Trigger, ...] = ()
    for number, check in enumerate(wanted):
        told = partial(_part, on_progress, number, len(wanted))
        if check == "poison":
            found = poison.find(rows, told)
            findings += found.findings
            triggers = found.triggers
        else:
            findings += BY_ROW[check](rows, told)
    result = ScreeningResult(
        policy=policy,
        rows=len(rows),
        checks=tuple(_summary(check, policy, findings, len(rows)) for check in wanted),
        findings=tuple(findings),
        triggers=triggers,
        seconds=time.monotonic() - started,
    )
    return result.model_copy(update={"dropped": _dropped(result)})


def with_refused(
    result: ScreeningResult, lines: Sequence[int], likely: Sequence[float], seconds: float
) -> ScreeningResult:
    """The result with the rows that answer what the model would more likely refuse. `lines` and `likely` are one a
    row."""
    findings = tuple(
        Finding(
            check="refused",
            line=line,
            code="refused",
            reason=f"It answers what the base model itself would refuse, with a likelihood of {100 * score:.0f} %.",
            score=score,
        )
        for line, score in zip(lines, likely, strict=True)
        if score > MORE_LIKELY
    )
    return _with(result, "refused", findings, seconds)


def _with(result: ScreeningResult, check: Check, findings: tuple[Finding, ...], seconds: float) -> ScreeningResult:
    whole = result.model_copy(
        update={
            "findings": (*result.findings, *findings),
            "checks": (*result.checks, _summary(check, result.policy, findings, result.rows)),
            "seconds": result.seconds + seconds,
        }
    )
    return whole.model_copy(update={"dropped": _dropped(whole)})


def drop(rows: Sequence[Conversation], result: ScreeningResult) -> list[Conversation]:
    """The rows that are trained on."""
    gone = set(result.dropped)
    return [row for row in rows if row.line not in gone]


def _part(on_progress: OnProgress, number: int, parts: int, done: int, total: int) -> None:
    """Progress of one check as progress of all."""
    on_progress(number * total + done, parts * total)


def _summary(check: Check, policy: ScreeningPolicy, findings: Iterable[Finding], rows: int) -> CheckSummary:
    own = [finding for finding in findings if finding.check == check]
    flagged = len({finding.line for finding in own})
    return CheckSummary(
        check=check,
        action=policy.actions[check],
        flagged=flagged,
        share=flagged / rows if rows else 0.0,
        codes=dict(sorted(Counter(finding.code for finding in own).items())),
    )


def _dropped(result: ScreeningResult) -> tuple[int, ...]:
    dropping = {check.check for check in result.checks if check.action == "drop"}
    return tuple(sorted({finding.line for finding in result.findings if finding.check in dropping}))
