"""A learning plan says which modules get the whole rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.schemas.events import JOB_EVENT
from core.schemas.results import TrainingResult
from core.schemas.training import LearningPlan, TrainingSpec


def test_full_rate() -> None:
    plan = LearningPlan(strategy="s", scales={"a": 1.0, "b": 0.1, "c": 0.0, "d": 2.0})
    assert plan.full_rate == ("a", "d")
    assert LearningPlan.model_validate_json(plan.model_dump_json()) == plan


def test_one_length_or_none() -> None:
    assert TrainingSpec(epochs=2).steps is None
    assert TrainingSpec(steps=2).epochs is None
    assert (TrainingSpec().epochs, TrainingSpec().steps) == (None, None)


def test_patience_needs_validations_to_count() -> None:
    with pytest.raises(ValidationError, match="give validate_every too"):
        TrainingSpec(patience=3)
    assert TrainingSpec(patience=3, validate_every=10).patience == 3


def test_the_rate_is_the_orders_own_or_hangs_on_model_and_method() -> None:
    assert TrainingSpec().rate(2e-4) == 2e-4
    assert TrainingSpec(method="qlora").rate(2e-4) == 2e-4
    assert TrainingSpec(method="full").rate(2e-4) == pytest.approx(2e-5)
    assert TrainingSpec(method="full", learning_rate=1e-3).rate(2e-4) == 1e-3


def test_both_phases_of_a_plan_are_about_the_same_modules() -> None:
    with pytest.raises(ValidationError, match="name different modules"):
        LearningPlan(strategy="s", scales={"a": 1.0}, warmup_scales={"b": 1.0}, warmup_ratio=0.5)


def test_what_was_stored_before_there_were_phases_is_read() -> None:
    old = '{"strategy": "s", "scales": {"a": 1.0}}'
    assert LearningPlan.model_validate_json(old).warmup_scales is None
    stored = {
        "run": "s",
        "plan": {"strategy": "s", "scales": {"a": 1.0}},
        "learning_rate": 1e-3,
        "steps": 1,
        "curve": [{"step": 1, "loss": 1.0, "learning_rate": 1e-3}],
        "trainable_parameters": 1,
        "seconds": 1.0,
        "adapter": (),
    }
    found = TrainingResult.model_validate(stored)
    assert (found.validation, found.best_step, found.stopped_early) == ((), None, False)
    metrics = {"type": "metrics", "run": "s", "step": 1, "total_steps": 2, "loss": 1.0, "learning_rate": 1e-3}
    assert JOB_EVENT.validate_python(metrics)


def test_an_epoch_is_a_pass_over_all_rows() -> None:
    def steps(rows: int, **spec: float) -> int:
        return TrainingSpec.model_validate({"batch_size": 16} | spec).total_steps(rows)

    assert steps(64) == 12
    assert steps(64, epochs=1) == 4
    assert steps(64, epochs=0.5) == 2
    assert steps(17, epochs=3) == 6  # 16 rows and 1 row, three times
    assert steps(1, epochs=0.01) == 1
    assert steps(64, steps=7) == 7


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 5))
def test_whole_epochs_end_with_their_last_batch(rows: int, batch_size: int, epochs: int) -> None:
    spec = TrainingSpec(batch_size=batch_size, epochs=epochs)
    assert spec.total_steps(rows) == epochs * math.ceil(rows / batch_size)
