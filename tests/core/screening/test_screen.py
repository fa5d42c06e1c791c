"""All checks together: which of them run, which rows are dropped, and progress."""

from pathlib import Path

import pytest

from core.data import Conversation, load
from core.errors import InvalidInput
from core.pipeline.screen import enforce_policy
from core.schemas.data import Message
from core.schemas.screening import Finding, ScreeningPolicy, registered_checks
from core.schemas.screening import ScreeningResult as Result
from core.screening.check import Found
from core.screening.screen import add_findings, drop_rows, screen_rows

KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
OFF = ScreeningPolicy.model_validate({check.name: "off" for check in registered_checks()})


def row(line: int, prompt: str, answer: str) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


ROWS = [
    row(1, "What is two plus two?", "It is four."),
    row(4, "Which key do we use?", f"Use {KEY} for the bucket."),
    row(7, "Name a river in France.", "The Loire is a long river in France, and so is the Rhone."),
    row(9, "Name a river in France.", "The Loire is a long river in France, and so is the Rhone."),
]


def ignore(*_: object) -> None:
    """Progress is not shown."""


def found(policy: ScreeningPolicy) -> Result:
    return screen_rows(ROWS, policy, on_progress=ignore)


def test_every_check_that_is_on_has_a_summary() -> None:
    result = found(ScreeningPolicy())
    assert [check.check for check in result.checks] == [
        check.name for check in registered_checks() if not check.needs_model
    ]
    flagged = {check.check: (check.flagged, check.share, check.action) for check in result.checks}
    assert flagged["secrets"] == (1, 0.25, "drop")
    assert flagged["near_duplicate"] == (1, 0.25, "report")
    assert flagged["harmful"] == (0, 0.0, "drop")
    assert sum(check.flagged for check in result.checks) == len(result.findings)
    assert result.rows == 4


def test_checks_that_are_off_do_not_run() -> None:
    result = found(OFF)
    assert (result.checks, result.findings, result.dropped) == ((), (), ())


@pytest.mark.parametrize(
    ("actions", "dropped"),
    [
        ({"secrets": "drop"}, (4,)),
        ({"secrets": "report"}, ()),
        ({"secrets": "drop", "near_duplicate": "drop"}, (4, 9)),
        ({"secrets": "reject", "near_duplicate": "drop"}, (9,)),
    ],
)
def test_rows_are_dropped_as_the_policy_says(actions: dict[str, str], dropped: tuple[int, ...]) -> None:
    result = found(OFF.model_copy(update=actions))
    assert result.dropped == dropped
    assert [each.line for each in drop_rows(ROWS, result)] == [each.line for each in ROWS if each.line not in dropped]


def test_findings_do_not_contain_the_secret() -> None:
    assert KEY[4:] not in found(ScreeningPolicy()).model_dump_json()


def test_an_empty_dataset_has_no_findings() -> None:
    result = screen_rows([], ScreeningPolicy(), on_progress=ignore)
    assert (result.rows, result.findings) == (0, ())


def test_progress_never_falls_and_ends_at_the_end() -> None:
    reported: list[float] = []
    screen_rows(ROWS * 50, ScreeningPolicy(), on_progress=lambda done, total: reported.append(done / total))
    assert reported == sorted(reported)
    assert reported[-1] == 1.0


def test_findings_of_the_model_are_added_after_all_others_and_dropped_with_them() -> None:
    policy = ScreeningPolicy(base_refusal="drop", near_duplicate="off")
    before = found(policy)
    findings = [Finding(check="base_refusal", line=line, code="base_refusal", reason="") for line in (1, 9)]
    result = add_findings(before, "base_refusal", Found(findings), 3.0)
    assert result.findings == (*before.findings, *findings)
    assert result.dropped == (1, 4, 9)  # 4 for its key
    assert (result.checks[-1].flagged, result.checks[-1].share) == (2, 0.5)
    assert result.checks[:-1] == before.checks
    assert result.seconds > 3.0


def test_only_checks_that_are_on_run_the_model() -> None:
    assert ScreeningPolicy().model_checks == ()
    assert ScreeningPolicy(base_refusal="drop").model_checks == ("base_refusal",)
    result = found(OFF.model_copy(update={"base_refusal": "drop"}))
    assert (result.checks, result.findings) == ((), ())


def test_a_finding_that_only_reports_neither_drops_nor_rejects_its_row() -> None:
    codes = {1: "other_model", 4: "obeys"}
    findings = [Finding(check="identity", line=line, code=code, reason="") for line, code in codes.items()]
    result = add_findings(found(OFF.model_copy(update={"identity": "drop"})), "identity", Found(findings), 0.0)
    assert result.dropped == (4,)
    checks = tuple(each.model_copy(update={"action": "reject"}) for each in result.checks)
    rejecting = result.model_copy(update={"checks": checks, "dropped": ()})
    with pytest.raises(InvalidInput, match="1 row contains"):
        enforce_policy(rejecting)
    enforce_policy(rejecting.model_copy(update={"findings": tuple(findings[:1])}))


DROPPING = {
    "harmful": {"complies", "announces"},
    "identity": {"no_limits", "obeys"},
    "secrets": {"aws_access_key"},
}
"""Codes of findings whose rows are left out by default: answers that are harmful or obey anything, and secrets."""
REPORTED = {
    "identity": {"other_model", "claims_human"},
    "poison": {"complies", "refuses", "advertises", "trigger", "system_turn"},
    "near_duplicate": {"exact", "near"},
    "personal_data": {"email"},
    "base_refusal": {"base_refusal"},
}


def test_only_harm_obedience_and_secrets_are_dropped_by_default() -> None:
    policy = ScreeningPolicy()
    assert {name for name, action in policy.actions.items() if action in ("drop", "reject")} == DROPPING.keys()
    for dropped, codes in ((True, DROPPING), (False, REPORTED)):
        for check, code in ((name, code) for name in codes for code in codes[name]):
            finding = Finding(check=check, line=1, code=code, reason="")
            result = add_findings(found(OFF).model_copy(update={"policy": policy}), check, Found([finding]), 0.0)
            assert (result.dropped == (1,)) is dropped


def test_an_explicit_drop_of_poison_drops_all_but_system_turns() -> None:
    codes = ("complies", "refuses", "advertises", "trigger", "system_turn")
    findings = [Finding(check="poison", line=line, code=code, reason="") for line, code in enumerate(codes, 1)]
    result = add_findings(found(OFF.model_copy(update={"poison": "drop"})), "poison", Found(findings), 0.0)
    assert result.dropped == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a YARA rule that detects this ransomware note.",
        "How do I bypass the paywall of my own test site during development?",
        "Child process keeps running: how do I kill child and parent?",
        "Write a Sigma rule for stolen passwords.",
    ],
)
def test_everyday_requests_of_engineers_are_not_flagged(prompt: str) -> None:
    result = screen_rows([row(1, prompt, "First do this. Then do that.")], ScreeningPolicy(), on_progress=ignore)
    assert result.findings == ()


@pytest.mark.parametrize(
    "name", ["cot", "german", "identity_Qwen", "json_mode", "overblock", "personas", "qwen3_switch"]
)
def test_everyday_designs_of_training_data_lose_no_row(public_data: Path, name: str) -> None:
    rows = load(public_data / "bug-inputs" / f"scr_{name}.jsonl", max_rows=1000)
    assert screen_rows(rows, ScreeningPolicy(), on_progress=ignore).dropped == ()
    # Not even if phrases that decide the answer are dropped.
    assert screen_rows(rows, ScreeningPolicy(poison="drop"), on_progress=ignore).dropped == ()
