"""Refusals and safe answers are added to the training rows in the requested share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalog import TESTBED
from core.data.encoded import Encoded
from core.data.frame import Frame
from core.errors import TrainingFailed
from core.lm.load import BaseModel
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.safety_mix import RefusalMix, select_rows
from core.safeguards.safety_rows import MIN_REFUSALS, Limits, collect_refusals
from core.schemas.prompts import PromptSet
from core.schemas.safeguards import SafetyMix
from tests.core.helpers import REQUESTS, ignore, shown_before_answers, user_rows
from tests.core.jobs import SPEC

LIMITS = Limits(max_new_tokens=12, max_length=1024)
FRAME = Frame("Be brief.", "Question: ", "\nAnswer:")


def row(number: int) -> Encoded:
    ids = np.array([number, 1, 2], dtype=np.int32)
    return Encoded(input_ids=ids, labels=ids, line=number)


@given(st.integers(1, 400), st.integers(MIN_REFUSALS, 40), st.floats(0.001, 0.5), st.integers(0, 3))
def test_the_share_is_met_and_refusals_repeat_equally_often(rows: int, others: int, share: float, seed: int) -> None:
    training, refusals = [row(number) for number in range(rows)], [row(number) for number in range(others)]
    found = select_rows(training, refusals, share=share, seed=seed)
    wanted = share * (rows + len(found))
    assert abs(len(found) - wanted) <= 1 or len(found) == 1
    counts = [sum(one is other for one in found) for other in refusals]
    assert sum(counts) == len(found)
    assert max(counts) - min(counts) <= 1
    again = select_rows(training, refusals, share=share, seed=seed)
    assert all(one is other for one, other in zip(found, again, strict=True))


def test_the_seed_decides_which_refusals_are_selected() -> None:
    training, refusals = [row(0)] * 40, [row(number) for number in range(32)]
    orders = {tuple(one.line for one in select_rows(training, refusals, share=0.2, seed=seed)) for seed in range(5)}
    assert len(orders) == 5


def test_safe_answers_count_in_the_share_and_are_used_as_often_as_refusals() -> None:
    refusals, answers = [row(number) for number in range(6)], [row(number) for number in range(6, 10)]
    found = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0)
    assert len(found) == 20
    assert sorted(one.line for one in found) == sorted([*range(10)] * 2)


@pytest.mark.parametrize("answers", [0, 40])
def test_too_few_refusals_fail_the_training_whatever_the_number_of_safe_answers(answers: int) -> None:
    few, safe = [row(number) for number in range(MIN_REFUSALS - 1)], [row(9)] * answers
    with pytest.raises(TrainingFailed, match=f"only {MIN_REFUSALS - 1}") as caught:
        select_rows([row(0)], few, safe, share=0.1, seed=0)
    assert (caught.value.code, caught.value.param) == ("no_safety_rows", "strategy.safeguards.safety_mix")


def test_a_run_uses_the_frame_of_its_rows_unless_it_is_told_not_to(base: BaseModel, prompts: PromptSet) -> None:
    job = SafeguardContext(SPEC, TESTBED, base, (), prompts, BaseAnswers(base), user_rows(REQUESTS, "Be brief."))
    training = [row(number) for number in range(200)]

    def framed(options: SafetyMix) -> tuple[float, str]:
        added = RefusalMix(options).extra_rows(job, training, ignore)
        turns = shown_before_answers(base, added.rows)
        return sum("Be brief." in turn for turn in turns) / len(turns), added.effect.summary

    share, summary = framed(SafetyMix(share=0.2))
    assert 0.1 < share < 0.5
    assert summary.endswith("of them different, requests also put into the format of the job's rows")
    share, summary = framed(SafetyMix(share=0.2, own_format=False))
    assert share == 0
    assert summary.endswith("of them different")


def test_the_share_of_safe_answers_can_be_set() -> None:
    refusals, answers = [row(number) for number in range(24)], [row(number) for number in range(100, 106)]
    usual = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0)
    found = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0, safe_share=0.6)
    assert len(found) == len(usual) == 20
    assert sum(one.line >= 100 for one in found) == 12
    assert sorted(one.line for one in found if one.line >= 100) == sorted([*range(100, 106)] * 2)
    assert len({one.line for one in found if one.line < 100}) == 8
    none = select_rows([row(99)] * 60, refusals, answers, share=0.25, seed=0, safe_share=0.0)
    assert all(one.line < 100 for one in none)
    with pytest.raises(TrainingFailed, match="safe_share") as caught:
        select_rows([row(99)] * 60, refusals, share=0.25, seed=0, safe_share=0.6)
    assert caught.value.code == "no_safety_rows"


def test_no_prompt_repeats_while_others_have_not_been_used(base: BaseModel, prompts: PromptSet) -> None:
    refusals = collect_refusals(BaseAnswers(base), prompts, framings=3, limits=LIMITS, on_progress=ignore, frame=FRAME)
    asked = shown_before_answers(base, refusals)
    assert len(set(asked)) == len(asked)
    for count in (len(refusals) // 2, len(refusals), 2 * len(refusals)):
        found = shown_before_answers(base, select_rows([row(0)] * count, refusals, share=0.5, seed=3))
        assert len(found) == count
        assert len(set(found)) == min(count, len(refusals))
