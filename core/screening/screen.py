"""Runs the checks of a policy over one dataset and collects what they find.

Not here: the checks themselves (one file each), when a job fails because of findings (core.pipeline.screen).
"""

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from core.data import Conversation
from core.schemas.progress import OnProgress
from core.schemas.screening import CheckSummary, ScreeningPolicy, ScreeningResult, is_report_only
from core.screening.check import Found, row_checks


def screen_rows(rows: Sequence[Conversation], policy: ScreeningPolicy, *, on_progress: OnProgress) -> ScreeningResult:
    """Run every check of the policy that reads the text only."""
    result = ScreeningResult(policy=policy, rows=len(rows), checks=(), findings=(), seconds=0.0)
    checks = [check for check in row_checks() if policy.actions[check.description.name] != "off"]
    for number, check in enumerate(checks):
        started = time.monotonic()
        found = check.find(rows, partial(_report_part, on_progress, number, len(checks)))
        result = add_findings(result, check.description.name, found, time.monotonic() - started)
    return result


def add_findings(result: ScreeningResult, check: str, found: Found, seconds: float) -> ScreeningResult:
    """The result with the findings of one more check. `seconds` is what the check took."""
    findings = (*result.findings, *found.findings)
    flagged = len({finding.line for finding in found.findings})
    summary = CheckSummary(
        check=check,
        action=result.policy.actions[check],
        flagged=flagged,
        share=flagged / result.rows if result.rows else 0.0,
        codes=dict(sorted(Counter(finding.code for finding in found.findings).items())),
    )
    checks = (*result.checks, summary)
    dropping = {summary.check for summary in checks if summary.action == "drop"}
    return result.model_copy(
        update={
            "findings": findings,
            "triggers": (*result.triggers, *found.triggers),
            "checks": checks,
            "dropped": tuple(
                sorted({each.line for each in findings if each.check in dropping and not is_report_only(each)})
            ),
            "seconds": result.seconds + seconds,
        }
    )


def drop_rows(rows: Sequence[Conversation], result: ScreeningResult) -> list[Conversation]:
    """The rows to train on: all but the dropped ones."""
    dropped = set(result.dropped)
    return [row for row in rows if row.line not in dropped]


def _report_part(on_progress: OnProgress, number: int, checks: int, done: int, total: int) -> None:
    """Report the progress of one check as progress of all checks."""
    on_progress(number * total + done, checks * total)
