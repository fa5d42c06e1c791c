"""A job keeps its precision, whatever machine its next attempt runs on, and machines of one kind agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.lm import precision
from core.pipeline.precision import choose_for_job
from core.pipeline.stages import Stages
from core.schemas.events import StageFinished
from core.schemas.results import PrecisionUsed
from core.schemas.training import Precision
from core.storage import ArtifactStore
from tests.core.helpers import tiny
from tests.core.jobs import RecordedEvents

CPU = torch.device("cpu")
FAST, SLOW = PrecisionUsed(weights="bfloat16", speedup=2.5), PrecisionUsed(weights="float32", speedup=1.1)


class Machine:
    """The self-test of a machine, which has another result each time."""

    def __init__(self, *results: float) -> None:
        self.results = list(results)

    def __call__(self, _shapes: object) -> float:
        return self.results.pop(0)


Decide = Callable[..., PrecisionUsed]


@pytest.fixture
def decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """Choose the precision of a job on a machine; all share one store."""
    tiny("llama").save_pretrained(tmp_path / "model")
    monkeypatch.setattr(precision, "_MIN_PARAMETERS", 1)

    def _decide(machine: Machine, *, cpu: str = "a", job: str = "job_a", wish: Precision = "auto") -> PrecisionUsed:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": cpu, "avx512_bf16": cpu != "old"})
        monkeypatch.setattr(precision, "measure_speedup", machine)
        recorded = RecordedEvents()
        stages = Stages(ArtifactStore(tmp_path / "store"), job, recorded, ("base_model",))
        found = stages.run("base_model", lambda: choose_for_job(stages, wish, CPU, tmp_path / "model"))
        (finished,) = [event for event in recorded.events if isinstance(event, StageFinished)]
        assert not finished.reused, "the model is loaded all the same"
        return found

    return _decide


def test_the_next_attempt_keeps_the_precision_on_another_machine(decide: Decide) -> None:
    assert decide(Machine(2.5), cpu="a") == FAST
    assert decide(Machine(), cpu="b") == FAST
    assert decide(Machine(), cpu="old") == FAST


def test_a_job_that_began_without_the_instructions_stays_in_float32(decide: Decide) -> None:
    assert decide(Machine(), cpu="old") == PrecisionUsed(weights="float32")
    assert decide(Machine(), cpu="a") == PrecisionUsed(weights="float32")


def test_jobs_on_machines_of_one_kind_share_the_self_test(decide: Decide) -> None:
    assert decide(Machine(1.1), job="job_a") == SLOW
    assert decide(Machine(), job="job_b") == SLOW
    assert decide(Machine(2.5), job="job_c", cpu="b") == FAST


def test_an_ordered_precision_is_neither_measured_nor_stored(decide: Decide) -> None:
    assert decide(Machine(), wish="float32") == PrecisionUsed(weights="float32")
    assert decide(Machine(), wish="bfloat16") == PrecisionUsed(weights="bfloat16")
    assert decide(Machine(2.5)) == FAST


def test_small_models_store_nothing(decide: Decide, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "_MIN_PARAMETERS", 10**9)
    assert decide(Machine()) == PrecisionUsed(weights="float32")
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").rglob("*.json"))
