"""A learning plan says which modules get the whole rate."""

from core.spec.training import LearningPlan, TrainingSpec


def test_full_rate() -> None:
    plan = LearningPlan(strategy="s", scales={"a": 1.0, "b": 0.1, "c": 0.0, "d": 2.0})
    assert plan.full_rate == ("a", "d")
    assert LearningPlan.model_validate_json(plan.model_dump_json()) == plan


def test_one_length_or_none() -> None:
    assert TrainingSpec(epochs=2).steps is None
    assert TrainingSpec(steps=2).epochs is None
    assert (TrainingSpec().epochs, TrainingSpec().steps) == (None, None)
