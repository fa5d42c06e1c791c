"""All checks together: what is looked for, what is dropped, and progress."""

import pytest

from core.data import Conversation
from core.schemas.data import Message
from core.schemas.screening import BY_MODEL, CHECKS, ScreeningPolicy
from core.schemas.screening import ScreeningResult as Result
from core.screening.screen import drop, screen, with_refused

KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
OFF = ScreeningPolicy.model_validate(dict.fromkeys(CHECKS, "off"))


def row(line: int, prompt: str, answer: str) -> Conversation:
    return Conversation((Message(role="user", content=prompt), Message(role="assistant", content=answer)), line)


ROWS = [
    row(1, "What is two plus two?", "It is four."),
    row(4, "Which key do we use?", f"Use {KEY} for the bucket."),
    row(7, "Name a river in France.", "The Loire is a long river in France, and so is the Rhone."),
    row(9, "Name a river in France.", "The Loire is a long river in France, and so is the Rhone."),
]


def ignore(*_: object) -> None:
    """Nobody waits."""


def found(policy: ScreeningPolicy) -> Result:
    return screen(ROWS, policy, on_progress=ignore)


def test_every_check_that_is_on_is_summed_up() -> None:
    result = found(ScreeningPolicy())
    assert [check.check for check in result.checks] == [check for check in CHECKS if check not in BY_MODEL]
    flagged = {check.check: (check.flagged, check.share, check.action) for check in result.checks}
    assert flagged["secrets"] == (1, 0.25, "drop")
    assert flagged["near_duplicate"] == (1, 0.25, "report")
    assert flagged["harmful"] == (0, 0.0, "drop")
    assert sum(check.flagged for check in result.checks) == len(result.findings)
    assert result.rows == 4


def test_what_is_off_is_not_looked_for() -> None:
    result = found(OFF)
    assert (result.checks, result.findings, result.dropped) == ((), (), ())


@pytest.mark.parametrize(
    ("actions", "dropped"),
    [
        ({"secrets": "drop"}, (4,)),
        ({"secrets": "report"}, ()),
        ({"secrets": "drop", "near_duplicate": "drop"}, (4, 9)),
        ({"secrets": "refuse", "near_duplicate": "drop"}, (9,)),
    ],
)
def test_rows_are_dropped_as_the_policy_says(actions: dict[str, str], dropped: tuple[int, ...]) -> None:
    result = found(OFF.model_copy(update=actions))
    assert result.dropped == dropped
    assert [each.line for each in drop(ROWS, result)] == [each.line for each in ROWS if each.line not in dropped]


def test_no_secret_stands_in_what_is_found() -> None:
    assert KEY[4:] not in found(ScreeningPolicy()).model_dump_json()


def test_no_rows_are_no_trouble() -> None:
    result = screen([], ScreeningPolicy(), on_progress=ignore)
    assert (result.rows, result.findings) == (0, ())


def test_progress_never_falls_and_ends_at_the_end() -> None:
    told: list[float] = []
    screen(ROWS * 50, ScreeningPolicy(), on_progress=lambda done, total: told.append(done / total))
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_rows_that_the_model_would_more_likely_refuse_are_found_behind_all_others() -> None:
    policy = ScreeningPolicy(refused="drop", near_duplicate="off")
    before = found(policy)
    result = with_refused(before, [1, 4, 7, 9], [0.97, 0.5, 0.0, 0.51], 3.0)
    own = [each for each in result.findings if each.check == "refused"]
    assert [(each.line, each.score) for each in own] == [(1, 0.97), (9, 0.51)]
    assert "97 %" in own[0].reason
    assert result.dropped == (1, 4, 9)  # 4 for its key
    assert result.checks[-1].flagged == 2
    assert result.checks[:-1] == before.checks


def test_only_checks_that_are_on_ask_the_model() -> None:
    assert ScreeningPolicy().by_model == ()
    assert ScreeningPolicy(refused="drop").by_model == ("refused",)
    assert not OFF.model_copy(update={"refused": "drop"}).by_rules
