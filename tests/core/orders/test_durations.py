"""Durations from counted work: the most comparable measurement is used, and the range says what is not known."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.orders.durations import Subject, add_up, estimate_stages
from core.schemas.estimate import Seconds, StageEstimate
from core.schemas.speeds import MeasuredSpeed
from core.schemas.workload import PlannedWork

SUBJECT = Subject("small", 1000, None)
STARTED = datetime(2026, 11, 30, tzinfo=UTC)


def measured(**fields: object) -> MeasuredSpeed:
    """A measured training of 10 passes and 1000 tokens that took 20 seconds."""
    usual: dict[str, object] = {
        "stage": "training",
        "work": "train",
        "calls": 10,
        "amount": 1000,
        "seconds": 20,
        "precision": "float32",
        "method": "lora",
        "model": "small",
        "parameters": 1000,
        "device": "CPU (a), 2 threads",
        "memory_bytes": 2**30,
        "job_id": "job_a",
        "measured_at": STARTED,
    }
    return MeasuredSpeed.model_validate(usual | fields)


def planned(**fields: object) -> PlannedWork:
    """A training of 20 passes and 2000 tokens."""
    usual: dict[str, object] = {
        "stage": "training",
        "run": "ml_lr",
        "work": "train",
        "calls": 20,
        "amount": 2000,
        "method": "lora",
    }
    return PlannedWork.model_validate(usual | fields)


def one(work: PlannedWork, *speeds: MeasuredSpeed, subject: Subject = SUBJECT) -> StageEstimate:
    (stage,) = estimate_stages([work], speeds, subject)
    return stage


def seconds(work: PlannedWork, *speeds: MeasuredSpeed, subject: Subject = SUBJECT) -> Seconds:
    found = one(work, *speeds, subject=subject).seconds
    assert found is not None
    return found


def test_twice_the_work_takes_twice_as_long() -> None:
    stage = one(planned(), measured())
    assert stage.seconds is not None
    assert stage.seconds.expected == pytest.approx(40)
    assert stage.seconds.low < 40 < stage.seconds.high < 80, "repeats differ, but not twofold"
    (basis,) = stage.basis
    assert (basis.job_id, basis.device, basis.measured_at, basis.model) == (
        "job_a", "CPU (a), 2 threads", STARTED, "small",
    )  # fmt: skip


@given(st.integers(1, 1000), st.floats(1, 1e6))
def test_the_time_is_between_that_of_the_calls_and_that_of_the_amount(calls: int, amount: float) -> None:
    found = seconds(planned(calls=calls, amount=amount), measured())
    ends = (2.0 * calls, 0.02 * amount)
    assert min(ends) * (1 - 1e-9) <= found.expected <= max(ends) * (1 + 1e-9)
    assert found.low < min(ends)
    assert found.high > max(ends)


def test_without_any_measurement_nothing_is_invented() -> None:
    stage = one(planned())
    assert (stage.seconds, stage.basis, stage.missing) == (None, (), ("train",))
    assert add_up([stage]) is None
    other = one(planned(), measured(model="large", parameters=4000), subject=Subject("small", None, None))
    assert other.seconds is None, "the size of the model is not known"


def test_another_model_is_scaled_by_its_parameters_with_a_wider_range() -> None:
    large = measured(model="large", parameters=4000)
    found, own = seconds(planned(), large), seconds(planned(), measured())
    assert found.expected == pytest.approx(10)
    assert found.high / found.low > 2 * own.high / own.low
    assert seconds(planned(), large, measured()).expected == pytest.approx(40), "its own measurement counts more"
    screening = {"stage": "screening", "work": "screen", "method": None}
    assert seconds(planned(**screening), measured(model="large", parameters=4000, **screening)).expected == 40


def test_the_same_method_and_number_format_count_more_than_newer_ones() -> None:
    newer = measured(method="full", seconds=200), measured(precision="bfloat16", seconds=2)
    wanted = Subject("small", 1000, "float32")
    assert seconds(planned(), *newer, measured(), subject=wanted).expected == pytest.approx(40)
    assert seconds(planned(), *newer, measured()).expected == pytest.approx(4), "the format of the worker is the newest"
    rough, exact = seconds(planned(), newer[0]), seconds(planned(method="full"), newer[0])
    assert rough.expected == exact.expected
    assert rough.high > 1.9 * exact.high


def test_answers_before_and_after_training_are_alike() -> None:
    answer = {"work": "answer", "method": "transformers"}
    found = seconds(planned(stage="after", **answer), measured(stage="before", **answer))
    assert found == seconds(planned(stage="before", **answer), measured(stage="before", **answer))
    assert one(planned(stage="before", **answer), measured(stage="before", **answer)).reusable
    elsewhere = one(planned(stage="report", work="other", calls=1, amount=1, method=None), measured(work="other"))
    assert elsewhere.seconds is None, "what is left of one stage says nothing about another"


def test_of_several_measurements_the_most_similar_size_is_expected_and_all_are_in_the_range() -> None:
    small = measured(calls=2, amount=200, seconds=8, measured_at=STARTED + timedelta(days=1))
    similar, short = measured(calls=18, amount=1800, seconds=18), measured(seconds=0.5)
    found = seconds(planned(), short, small, similar)
    assert found.expected == pytest.approx(20)
    assert found.low < 20
    assert found.high > 80, "as the small one predicts"
    assert found.low > 2, "half a second is too short to count"


def test_an_analysis_that_was_never_measured_is_estimated_from_reading_rows() -> None:
    work = planned(stage="robustness", work="analyse", calls=10, amount=600, method=None)
    read = measured(stage="before", work="read", calls=60, amount=3000, seconds=3, method=None)
    assert seconds(work, read).expected == pytest.approx(30)
    assert one(work, measured()).seconds is None, "the tokens of its rows are not known"


def test_a_check_measures_answers_and_training_which_the_rest_is_estimated_from() -> None:
    answer = measured(stage="before", work="answer", method="transformers", calls=8, amount=384, seconds=24)
    rows = planned(stage="before", work="answer_rows", calls=4, amount=192, method=None)
    assert seconds(rows, answer, measured()).expected == pytest.approx(12)
    read = planned(stage="before", work="read", calls=10, amount=1000, method=None)
    assert seconds(read, answer, measured()).expected == pytest.approx(20 / 3)
    assert one(rows, measured()).missing == ("answer_rows",)


def test_a_stage_is_the_sum_of_its_work() -> None:
    work = [planned(), planned(work="other", calls=1, amount=1, method=None)]
    rest = measured(work="other", calls=1, amount=1, seconds=5, method=None)
    (stage,) = estimate_stages(work, [rest, measured()], SUBJECT)
    assert stage.seconds is not None
    assert stage.seconds.expected == pytest.approx(45)
    assert [basis.work for basis in stage.basis] == ["train", "other"]
    (alone,) = estimate_stages(work, [measured()], SUBJECT)
    assert alone.missing == (), "the rest of a stage is small"
    total = add_up([stage, alone, one(planned(stage="robustness", work="analyse"))])
    assert total is not None
    assert total.expected == pytest.approx(85)
