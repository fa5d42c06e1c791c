"""A check of a base model: on the testbed from order to file, and its parts on random models."""

from pathlib import Path

import pytest

from core.catalog import TESTBED
from core.errors import Interrupted
from core.lm.load import BaseModel
from core.lm.modules import find_modules
from core.pipeline.modelcheck import estimate_all, list_modules, measure_training
from core.pipeline.run import check
from core.pipeline.stages import Stages
from core.schemas.events import PipelineEvent, Progress, SpeedsMeasured, StageFinished
from core.schemas.job import CheckAssignment, CheckSpec
from core.schemas.modelcheck import ModelCheck
from core.storage import ArtifactStore
from tests.core.checks import CHECK
from tests.core.helpers import fingerprint, tiny_base
from tests.core.jobs import JOB

SPEC = CheckSpec(base_model="testbed", lengths=(32, 64, 4096), batch_sizes=(2,), lora_rank=4, prompts=8)
ASSIGNMENT = CheckAssignment(job_id=JOB, attempt=1, spec=SPEC)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelCheck, list[PipelineEvent]]:
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    events: list[PipelineEvent] = []
    outcome = check(ASSIGNMENT, store=store, model=TESTBED, device="cpu", emit=events.append)
    (file,) = outcome.artifacts
    assert (file.name, file.gated, outcome.gate) == ("model-check.json", False, None)
    return ModelCheck.model_validate_json(store.path(file.key).read_bytes()), events


def test_the_model_is_identified_and_described(checked: tuple[ModelCheck, list[PipelineEvent]]) -> None:
    found, _ = checked
    assert (found.entry_sha256, found.state_sha256) == (CHECK.entry_sha256, CHECK.state_sha256)
    assert (found.model.architecture, found.model.parameters) == ("LlamaForCausalLM", found.shape.parameters)
    assert {kind.type: kind.parameters for kind in found.modules} == {
        each.type: each.parameters for each in found.shape.maps
    }
    assert (found.weights, found.device, found.warnings) == ("float32", "cpu", ())


def test_the_example_marks_what_is_trained_on(checked: tuple[ModelCheck, list[PipelineEvent]]) -> None:
    template = checked[0].template
    assert template.example.startswith("<|system|>")
    assert template.example.count("[[") == template.example.count("]]") == 1
    assert template.example.endswith(".<|end|>]]")
    assert (template.system_turns, template.thinking, template.stop_tokens) == (True, False, ("<|end|>",))


def test_an_aligned_model_has_something_to_protect(checked: tuple[ModelCheck, list[PipelineEvent]]) -> None:
    refusals = checked[0].refusals
    assert refusals.harmful.n + refusals.harmful.undecided == 8
    assert refusals.harmful.value > 0.5
    assert refusals.harmful.low < refusals.harmful.value
    assert refusals.safe.value < 0.5
    assert refusals.protectable is True
    assert refusals.refused_example


def test_lengths_beyond_the_context_are_cut_to_it(checked: tuple[ModelCheck, list[PipelineEvent]]) -> None:
    found, _ = checked
    assert {(each.method, each.length) for each in found.memory} == {
        (method, length) for method in ("lora", "full") for length in (32, 64, 1024)
    }
    assert [each.length for each in found.answers] == [32, 64, 1024]


def test_speeds_are_measured_and_reported(checked: tuple[ModelCheck, list[PipelineEvent]]) -> None:
    found, events = checked
    assert {"load", "answer", "train"} <= {each.work for each in found.speeds.speeds}
    assert found.training_tokens_per_second is not None
    assert found.training_tokens_per_second > 0
    assert found.answer_tokens_per_second is not None
    assert any(isinstance(event, SpeedsMeasured) for event in events)
    assert [event.stage for event in events if isinstance(event, StageFinished)] == [
        "base_model",
        "dataset",
        "before",
        "training",
        "report",
    ]
    assert [event for event in events if isinstance(event, Progress)][-1].fraction == 1.0


def test_a_check_can_be_interrupted(tmp_path: Path) -> None:
    def stop(event: PipelineEvent) -> None:
        if isinstance(event, StageFinished):
            raise Interrupted("The worker requested to stop the job.")

    with pytest.raises(Interrupted):
        check(ASSIGNMENT, store=ArtifactStore(tmp_path), model=TESTBED, device="cpu", emit=stop)


def test_training_leaves_the_model_as_it_was(base: BaseModel, tmp_path: Path) -> None:
    before = fingerprint(base.model)
    stages = Stages(ArtifactStore(tmp_path), JOB, lambda _event: None, ("training",))
    speed = stages.run("training", lambda: measure_training(base, find_modules(base.model), SPEC, stages))
    assert speed > 0
    assert fingerprint(base.model) == before
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.parametrize("family", ["gpt2", "phi3", "qwen2", "mixtral"])
def test_modules_are_listed_by_type_with_their_biases(family: str, base: BaseModel) -> None:
    model = tiny_base(family, base)
    modules = find_modules(model.model)
    found = {kind.type: kind for kind in list_modules(model, modules)}
    for kind in found.values():
        assert kind.layers == 2
        assert kind.parameters == sum(module.parameters for module in modules if module.type == kind.type)
    biased = {kind.type for kind in found.values() if kind.biases}
    assert biased == {"gpt2": set(found), "phi3": set(), "qwen2": {"q", "k", "v"}, "mixtral": set()}[family]
    shapes = {"gpt2": "16 x 16", "phi3": "16 x 16", "qwen2": "16 x 16", "mixtral": "16 x 16"}
    assert found["q"].shapes == (shapes[family],)


def test_4_bit_weights_are_estimated_on_a_gpu_only() -> None:
    def methods(device: str) -> set[str]:
        kind = "cuda" if device == "cuda" else "cpu"
        found = estimate_all(CHECK.shape, SPEC, device=kind, weights="bfloat16", memory_bytes=10**9)
        return {each.method for each in found}

    assert methods("cpu") == {"lora", "full"}
    assert methods("cuda") == {"lora", "full", "qlora"}
