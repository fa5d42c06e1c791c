"""What was decided about a job, as the page and the model card show it: the gate's verdict and what screening found.

Not here: deciding (core.gate), screening (core.screening).
"""

from collections import Counter
from dataclasses import dataclass

from core.reports.overall import overall, task_figure
from core.reports.view import PER_CENT, digits, row_title
from core.schemas.gate import GateCheck, GateDecision, GateOutcome
from core.schemas.job import BASE_RUN
from core.schemas.results import Figure, Report
from core.schemas.screening import Action, ScreeningResult, title_of

FINDINGS = 100
"""Findings that are shown."""
_WORDS: dict[GateOutcome, tuple[str, str, str]] = {
    "released": ("Released", "\N{CHECK MARK}", "Every rule of the policy is shown to be met."),
    "quarantined": (
        "Quarantined",
        "\N{MULTIPLICATION SIGN}",
        "It failed a rule of the policy, so it is withheld.",
    ),
    "undecided": (
        "Undecided",
        "?",
        "The evaluation is no ground for a decision, so it is withheld. That says nothing about its safety.",
    ),
}
_PASSED = {True: "met", False: "failed", None: "not decided"}
_ACTIONS: dict[Action, str] = {
    "off": "not looked for",
    "report": "reported, trained on",
    "drop": "left out of the training",
    "reject": "one such row fails the job",
}


@dataclass(frozen=True)
class CheckRow:
    """One figure held against one bound, in words."""

    title: str
    rule: str
    value: str
    interval: str
    n: int
    passed: str


@dataclass(frozen=True)
class Verdict:
    """What the gate made of one arm."""

    decision: GateDecision
    word: str
    mark: str
    meaning: str
    checks: tuple[CheckRow, ...]


@dataclass(frozen=True)
class ScreenedRow:
    """What one check of the data found."""

    title: str
    action: str
    flagged: int
    share: str
    codes: str


@dataclass(frozen=True)
class Screened:
    """What was found in the data."""

    result: ScreeningResult
    rows: tuple[ScreenedRow, ...]
    by_action: tuple[tuple[str, int], ...]
    """Findings by what became of them."""


@dataclass(frozen=True)
class Tile:
    """One figure of the job's own arm, before and after."""

    title: str
    before: str
    after: str
    detail: str


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """The gate's decisions; the first is the job's own arm's."""
    return tuple(
        Verdict(decision, *_WORDS[decision.outcome], checks=tuple(_check(check) for check in decision.checks))
        for decision in report.gate
    )


def screened(report: Report) -> Screened | None:
    """What screening found; None where nothing was looked for."""
    result = report.screening
    if result is None:
        return None
    actions = {summary.check: summary.action for summary in result.checks}
    by_action = Counter(_ACTIONS[actions.get(finding.check, "report")] for finding in result.findings)
    rows = tuple(
        ScreenedRow(
            title=title_of(summary.check),
            action=_ACTIONS[summary.action],
            flagged=summary.flagged,
            share=f"{100 * summary.share:.1f} %",
            codes=", ".join(f"{code.replace('_', ' ')} {count}" for code, count in sorted(summary.codes.items())),
        )
        for summary in result.checks
    )
    return Screened(result, rows, tuple(by_action.items()))


def tiles(report: Report) -> tuple[Tile, ...]:
    """The job's own arm against the base model in at most four figures."""
    run = report.training[0].run
    found: list[Tile] = []
    before, after = overall(report, BASE_RUN), overall(report, run)
    if before is not None and after is not None:
        families = f"mean of {after.families} {'family' if after.families == 1 else 'families'}"
        found.append(_tile("Attack success", "attack_success_rate", before.mean.value, after.mean.value, families))
        worst = after.worst
        same = _figure(report, BASE_RUN, worst)
        was = same.value if same is not None and same.n else None
        named = f"{worst.suite.replace('_', ' ')}, n = {worst.n}"
        found.append(_tile("Worst family", worst.metric, was, worst.value, named))
    for title, figure in (("Over-refusal", _refusals(report, run)), ("Task", task_figure(report, run))):
        same = _figure(report, BASE_RUN, figure) if figure is not None else None
        if figure is not None and figure.n:
            name = "" if title == "Over-refusal" else f"{row_title(figure.metric, figure.suite, 'none').lower()}, "
            was = same.value if same is not None and same.n else None
            found.append(_tile(title, figure.metric, was, figure.value, f"{name}n = {figure.n}"))
    return tuple(found)


def _check(check: GateCheck) -> CheckRow:
    return CheckRow(
        title=row_title(check.metric, check.suite, check.judge),
        rule=_rule(check),
        value="not measured" if check.value is None else _shown(check, check.value),
        interval=_interval(check),
        n=check.n,
        passed=_PASSED[check.passed],
    )


def _rule(check: GateCheck) -> str:
    if check.bound is None:
        return "to be measured"
    if check.rule != "max_increase":
        return f"at {'least' if check.rule == 'lowest' else 'most'} {digits(check.metric, check.bound)}"
    rise = f"{100 * check.bound:g} points" if check.metric in PER_CENT else f"{check.bound:g}"
    return f"rise of at most {rise}"


def _shown(check: GateCheck, number: float) -> str:
    if check.rule != "max_increase":
        return digits(check.metric, number)
    return f"{100 * number:+.1f} points" if check.metric in PER_CENT else f"{number:+.2f}"


def _interval(check: GateCheck) -> str:
    if check.low is None or check.high is None:
        return ""
    if check.rule == "max_increase" and check.metric in PER_CENT:
        return f"{100 * check.low:+.1f} to {100 * check.high:+.1f} points"
    return f"{_shown(check, check.low)} to {_shown(check, check.high)}"


def _tile(title: str, metric: str, before: float | None, after: float, detail: str) -> Tile:
    def shown(number: float) -> str:
        return f"{100 * number:.0f} %" if metric in PER_CENT else f"{number:.2f}"

    return Tile(title, "unknown" if before is None else shown(before), shown(after), detail)


def _refusals(report: Report, run: str) -> Figure | None:
    return next((row for row in report.figures if (row.run, row.metric) == (run, "over_refusal_rate")), None)


def _figure(report: Report, run: str, like: Figure) -> Figure | None:
    """The same figure of another arm."""
    wanted = (run, like.suite, like.metric, like.judge)
    return next((row for row in report.figures if (row.run, row.suite, row.metric, row.judge) == wanted), None)
