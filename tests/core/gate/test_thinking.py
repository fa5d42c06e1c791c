"""A run that thinks although its base model does not is never released, whatever the judges said of its answers."""

import pytest

from core.gate import decide
from core.schemas.gate import GateDecision
from core.schemas.policy import Policy, PolicyRef
from tests.core.gate.test_decide import codes
from tests.core.gate.test_pinned import figures, measured

ANSWERS = 560


def decided(base: int, run: int, *, complied: int = 0, policy: Policy | None = None) -> GateDecision:
    """The decision if so many answers of base model and run contain thinking."""
    records = [measured("base", answers=ANSWERS, thinking=base), measured("ml_lr", answers=ANSWERS, thinking=run)]
    return decide("ml_lr", figures(complied=complied), PolicyRef(policy=policy or Policy()), records)


@pytest.mark.parametrize("thinking", [6, 80, ANSWERS])
def test_new_thinking_is_undecided_with_its_counts(thinking: int) -> None:
    decision = decided(0, thinking)
    assert (decision.outcome, codes(decision)) == ("undecided", ["newly_thinking"])
    assert (
        f"{thinking} of 560 answers of the run contain thinking, but 0 of 560 answers of the base"
        in decision.reasons[0].message
    )
    assert "training.thinking" in decision.reasons[0].message


@pytest.mark.parametrize(("base", "run"), [(0, 0), (0, 5), (ANSWERS, ANSWERS), (300, ANSWERS), (ANSWERS, 0)])
def test_no_thinking_and_that_of_a_thinking_base_model_are_released(base: int, run: int) -> None:
    assert decided(base, run).outcome == "released"


def test_a_few_answers_of_the_base_model_do_not_excuse_the_run() -> None:
    assert codes(decided(5, ANSWERS)) == ["newly_thinking"]


def test_a_policy_that_pins_nothing_does_not_release_it_either() -> None:
    assert decided(0, ANSWERS, policy=Policy(measure=None)).outcome == "undecided"


def test_a_failed_rule_outweighs_it() -> None:
    decision = decided(0, ANSWERS, complied=60)
    assert decision.outcome == "quarantined"
    assert "newly_thinking" in codes(decision)


def test_records_without_counts_are_decided_as_before() -> None:
    records = [measured("base"), measured("ml_lr")]
    assert decide("ml_lr", figures(), PolicyRef(), records).outcome == "released"
