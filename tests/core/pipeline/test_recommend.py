"""Recommended settings follow from estimates and refusals."""

from core.pipeline.recommend import recommend
from core.schemas.memory import Memory
from core.schemas.modelcheck import RefusalCheck, Setting, TrainingMemory
from core.schemas.training import Method
from tests.core.checks import REFUSALS

WITHOUT_REFUSALS = REFUSALS.model_copy(update={"protectable": False})


def estimate(method: Method, rows: int, length: int, total: int, *, fits: bool) -> TrainingMemory:
    memory = Memory(
        weights=total, adapter=0, gradients=0, optimizer=0, activations=0, logits=0, overhead=0, total=total
    )
    return TrainingMemory(method=method, weights="float32", batch_size=rows, length=length, memory=memory, fits=fits)


ESTIMATES = (
    estimate("lora", 1, 256, 10, fits=True),
    estimate("lora", 4, 256, 20, fits=True),
    estimate("lora", 1, 1024, 30, fits=True),
    estimate("lora", 4, 1024, 80, fits=False),
    estimate("full", 1, 256, 60, fits=True),
    estimate("full", 1, 1024, 90, fits=False),
)


def settings(*estimates: TrainingMemory, refusals: RefusalCheck = REFUSALS) -> dict[str, Setting]:
    found = recommend(estimates, refusals, learning_rate=1e-4, memory_bytes=100)
    assert all(each.reason.endswith(".") for each in found)
    return {each.name: each for each in found}


def test_the_longest_rows_that_fit_are_recommended_with_the_largest_batch() -> None:
    found = settings(*ESTIMATES)
    assert found["training.method"].value == "lora"
    assert found["training.max_length"].value == 1024
    assert found["training.micro_batch_size"].value == 1
    assert "3.0 times" in found["training.method"].reason
    assert found["training.learning_rate"].value == 1e-4


def test_no_micro_batch_is_recommended_if_the_default_batch_fits() -> None:
    whole = (estimate("lora", 16, 256, 10, fits=True), estimate("full", 16, 256, 10, fits=True))
    found = settings(*whole)
    assert "training.micro_batch_size" not in found
    assert "about as much" in found["training.method"].reason


def test_4_bit_weights_are_recommended_if_nothing_else_fits() -> None:
    qlora = (
        estimate("lora", 1, 256, 99, fits=False),
        estimate("full", 1, 256, 300, fits=False),
        estimate("qlora", 1, 256, 30, fits=True),
    )
    assert settings(*qlora)["training.method"].value == "qlora"


def test_nothing_about_memory_is_recommended_if_nothing_fits() -> None:
    found = settings(*(each.model_copy(update={"fits": False}) for each in ESTIMATES))
    assert not any(name.startswith(("training.method", "training.max", "training.micro")) for name in found)
    assert "training.learning_rate" in found


def test_a_safeguard_is_recommended_only_if_there_is_something_to_protect() -> None:
    assert settings(*ESTIMATES)["strategy"].value == "recommended"
    assert not any(name.startswith("strategy") for name in settings(*ESTIMATES, refusals=WITHOUT_REFUSALS))


def test_the_measurement_is_the_one_that_the_built_in_policy_needs() -> None:
    found = settings(*ESTIMATES)
    assert (found["security.suite"].value, found["security.max_prompts"].value) == ("standard", 80)
