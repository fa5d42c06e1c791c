"""Decisions about a job as the page and the model card show them: the gate's, and the screening's.

Not here: deciding (core.gate), screening (core.screening).
"""

from collections import Counter
from dataclasses import dataclass

from core.reports import numbers
from core.reports.overall import overall, task_figure
from core.reports.view import largest_noise, row_title
from core.schemas.evaluation import Figure
from core.schemas.gate import GateCheck, GateDecision, GateOutcome
from core.schemas.job import BASE_RUN
from core.schemas.measure import Measured
from core.schemas.results import Report
from core.schemas.screening import Action, ScreeningResult, title_of

MAX_FINDINGS = 100
"""Number of findings that the page lists."""
_OUTCOMES: dict[GateOutcome, tuple[str, str, str]] = {
    "released": ("Released", "\N{CHECK MARK}", "The figures show that every rule of the policy is met."),
    "quarantined": (
        "Quarantined",
        "\N{MULTIPLICATION SIGN}",
        "At least one rule of the policy is not met, so the adapter is withheld.",
    ),
    "undecided": (
        "Undecided",
        "?",
        "The evaluation is not sufficient for a decision, so the adapter is withheld. This says nothing about its "
        "safety.",
    ),
}
_PASSED = {True: "met", False: "failed", None: "undecided"}
_ACTIONS: dict[Action, str] = {
    "off": "not checked",
    "report": "reported and trained on",
    "drop": "left out of training",
    "reject": "fails the job",
}


@dataclass(frozen=True)
class CheckRow:
    """One figure compared with one bound, as text."""

    title: str
    rule: str
    value: str
    interval: str
    n: int
    passed: str


@dataclass(frozen=True)
class Verdict:
    """The gate's decision about one run, as text."""

    decision: GateDecision
    word: str
    mark: str
    meaning: str
    checks: tuple[CheckRow, ...]


@dataclass(frozen=True)
class CheckedRows:
    """The rows that one screening check flagged, as text."""

    title: str
    action: str
    flagged: int
    share: str
    codes: str


@dataclass(frozen=True)
class Screened:
    """The result of the screening, as text."""

    result: ScreeningResult
    rows: tuple[CheckedRows, ...]
    by_action: tuple[tuple[str, int], ...]
    """Number of findings by action."""


@dataclass(frozen=True)
class Tile:
    """One figure of the job's own run, before and after training."""

    title: str
    before: str
    after: str
    detail: str


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """The gate's decisions; the first is about the job's own run."""
    return tuple(
        Verdict(decision, *_OUTCOMES[decision.outcome], checks=tuple(_check_row(each) for each in decision.checks))
        for decision in report.gate
    )


def pinned(report: Report) -> tuple[str, ...]:
    """What the policy pins, and how the job's own run was measured, one sentence each."""
    measure = report.policy.policy.measure if report.policy is not None else None
    measured = report.gate[0].measured if report.gate else None
    if measured is None:
        return ()
    if measure is None:
        return ("The policy pins no measurement: the order chose what was measured.", _measured(measured))
    served = ", or the one that a safeguard requires" if measure.serving_prompts else ""
    return (
        f"The policy pins: attacks of {', '.join(measure.families)}; at least {measure.min_prompts} prompts each of "
        f"{_set('harmful prompts', measure.prompts.harmful)} and of {_set('safe look-alikes', measure.prompts.safe)} "
        f"(a smaller set whole); answers of up to at least {measure.min_new_tokens} tokens; "
        f"{_system(measure.system_prompt)}{served}.",
        _measured(measured),
    )


def _measured(measured: Measured) -> str:
    families = ", ".join(f"{each.attack.family} ({each.prompts})" for each in measured.attacks)
    thinking = f"; thinking in {measured.thinking} of {measured.answers} answers" if measured.thinking else ""
    return (
        f"Measured: {families}, over_refusal ({measured.safe_prompts}); harmful prompts "
        f"{measured.harmful.sha256[:12]}, safe look-alikes {measured.safe.sha256[:12]} (SHA-256); answers of up to "
        f"{measured.max_new_tokens} tokens; {_system(measured.system_prompt)}{thinking}."
    )


def _set(what: str, sha256: str | None) -> str:
    return f"the {what} {sha256[:12]}" if sha256 else f"the server's {what} for the base model"


def _system(prompt: str | None) -> str:
    return "no system prompt" if prompt is None else f"the system prompt {prompt!r}"


def screened(report: Report) -> Screened | None:
    """The result of the screening; None if the dataset was not screened."""
    result = report.screening
    if result is None:
        return None
    actions = {summary.check: summary.action for summary in result.checks}
    by_action = Counter(_ACTIONS[actions.get(finding.check, "report")] for finding in result.findings)
    rows = tuple(
        CheckedRows(
            title=title_of(summary.check),
            action=_ACTIONS[summary.action],
            flagged=summary.flagged,
            share=numbers.percent(summary.share),
            codes=", ".join(f"{code.replace('_', ' ')} {count}" for code, count in sorted(summary.codes.items())),
        )
        for summary in result.checks
    )
    return Screened(result, rows, tuple(by_action.items()))


def tiles(report: Report) -> tuple[Tile, ...]:
    """Up to four figures that summarize the job's own run against the base model."""
    run = report.training[0].run
    tiles: list[Tile] = []
    before, after = overall(report, BASE_RUN), overall(report, run)
    if before is not None and after is not None:
        tiles.append(
            Tile(
                "Attack success rate",
                numbers.percent(before.value),
                numbers.percent(after.value),
                f"mean of {numbers.plural(len(after.n), 'family', 'families')}",
            )
        )
        worst = after.worst
        tiles.append(_tile(report, "Highest attack success rate", worst, f"{worst.suite.replace('_', ' ')}, "))
    refusals = next((row for row in report.figures if (row.run, row.metric) == (run, "over_refusal_rate")), None)
    if refusals is not None and refusals.n:
        tiles.append(_tile(report, "Over-refusal rate", refusals))
    task = task_figure(report, run)
    if task is not None:
        tiles.append(_tile(report, "Task", task, f"{row_title(task.metric, task.suite, 'none').lower()}, "))
    return tuple(tiles)


def _tile(report: Report, title: str, figure: Figure, detail: str = "") -> Tile:
    same = (BASE_RUN, figure.suite, figure.metric, figure.judge)
    base = next((each for each in report.figures if (each.run, each.suite, each.metric, each.judge) == same), None)
    before = numbers.value(figure.metric, base.value) if base is not None and base.n else "unknown"
    noise = f", noise {size}" if (size := largest_noise([figure])) else ""
    return Tile(title, before, numbers.value(figure.metric, figure.value), f"{detail}n = {figure.n}{noise}")


def _check_row(check: GateCheck) -> CheckRow:
    increase = check.rule == "max_increase"
    show, show_interval = (numbers.change, numbers.change_interval) if increase else (numbers.value, numbers.interval)
    return CheckRow(
        title=row_title(check.metric, check.suite, check.judge),
        rule=_rule(check),
        value=show(check.metric, check.value) if check.value is not None else "not measured",
        interval="" if check.low is None or check.high is None else show_interval(check.metric, check.low, check.high),
        n=check.n,
        passed=_PASSED[check.passed],
    )


def _rule(check: GateCheck) -> str:
    if check.bound is None:
        return "must be measured"
    if check.rule == "max_increase":
        return f"increase of at most {numbers.change(check.metric, check.bound).removeprefix('+')}"
    return f"at {'least' if check.rule == 'min_value' else 'most'} {numbers.value(check.metric, check.bound)}"
