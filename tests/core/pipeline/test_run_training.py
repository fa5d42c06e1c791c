"""The training of whole jobs: full fine-tuning, checkpoints, validation during training, 4-bit weights."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.catalog import TESTBED
from core.errors import InvalidInput, TrainingFailed
from core.lm.load import BaseModel
from core.quality.loss import row_losses
from core.schemas.events import Metrics, PipelineEvent
from core.schemas.job import JobSpec
from core.schemas.results import Outcome, Report
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.storage import ArtifactStore
from securetune.client.downloads import unpack
from tests.core.helpers import conversations, encoded, ignore
from tests.core.jobs import JOB, SPEC, RecordedEvents, artifact_keys, assign, run_job, run_until_stopped, upload

PLAIN = SPEC.model_copy(update={"strategy": UniformStrategy(), "compare": ()})


def with_training(**fields: object) -> JobSpec:
    whole = {**SPEC.training.model_dump(), **fields}
    return PLAIN.model_copy(update={"training": TrainingSpec.model_validate(whole)})


def report_of(store: ArtifactStore, named: dict[str, Path]) -> Report:
    return Report.model_validate_json(store.path(str(named["report.json"])).read_bytes())


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def test_full_fine_tuning_stores_the_whole_model(store: ArtifactStore, base: BaseModel, tmp_path: Path) -> None:
    rows = conversations(24, "arithmetic.jsonl")
    held_out = upload(store, rows[20:])
    outcome, _ = run_job(store, assign(with_training(method="full"), upload(store, rows[:20]), validation=held_out))
    named = artifact_keys(outcome)
    assert {"model.tar", "model/model.safetensors", "model/config.json", "model/tokenizer.json"} <= named.keys()
    assert not [name for name in named if name.startswith("adapter")]
    report = report_of(store, named)
    assert report.training[0].learning_rate == pytest.approx(TESTBED.learning_rate / 10), "a tenth of the testbed's own"
    losses = {figure.run: figure.value for figure in report.figures if figure.metric == "loss"}
    assert losses["uniform"] < losses["base"] - 0.1
    (proof,) = report.weights
    assert (proof.run, proof.merged) == ("uniform", None)
    assert proof.change > 10 * proof.noise
    mine = tmp_path / "mine"
    mine.mkdir()
    unpack(store.path(str(named["model.tar"])), mine)
    model = AutoModelForCausalLM.from_pretrained(mine).eval()
    found = row_losses(base, model, encoded(base, 24, "arithmetic.jsonl")[20:], on_progress=ignore)
    mean = sum(found) / len(found)
    assert mean == pytest.approx(losses["uniform"], abs=1e-6), "figures are those of what is handed out"


def test_training_without_any_effect_fails_the_job(store: ArtifactStore) -> None:
    spec = with_training(steps=1, learning_rate=1e-30)
    with pytest.raises(TrainingFailed) as caught:
        run_job(store, assign(spec, upload(store, conversations(12))))
    assert caught.value.code == "training_without_effect"
    assert "uniform" in caught.value.message


def test_a_job_resumes_from_its_checkpoint_and_removes_it(store: ArtifactStore, tmp_path: Path) -> None:
    spec = with_training(steps=8, checkpoint_every=3, validate_every=4)
    rows = conversations(12)
    other = ArtifactStore(tmp_path / "other")
    straight, recorded = run_job(other, assign(spec, upload(other, rows)))
    dataset = upload(store, rows)

    def at_step_5(event: PipelineEvent) -> bool:
        return isinstance(event, Metrics) and event.step == 5

    run_until_stopped(store, assign(spec, dataset), at_step_5)
    (left,) = (store.root / "jobs" / JOB / "checkpoints").iterdir()
    assert left.name.startswith("uniform-")
    outcome, again = run_job(store, assign(spec, dataset, attempt=2))
    assert [event.step for event in again.events if isinstance(event, Metrics)] == [4, 5, 6, 7, 8]
    assert not list((store.root / "jobs" / JOB / "checkpoints").iterdir())

    def adapter(found: Outcome) -> dict[str, str]:
        return {file.name: file.sha256 for file in found.artifacts if file.name.startswith("adapter")}

    assert adapter(outcome) == adapter(straight)
    told = {event.step: event.validation_loss for event in recorded.events if isinstance(event, Metrics)}
    assert {step for step, loss in told.items() if loss is not None} == {4, 8}
    result = report_of(store, artifact_keys(outcome)).training[0]
    assert [(point.step, point.loss) for point in result.validation] == [(4, told[4]), (8, told[8])]
    assert [point.step for point in result.curve] == list(range(1, 9)), "those of the first attempt are kept"


def test_a_checkpoint_with_other_inputs_is_ignored(store: ArtifactStore) -> None:
    def at_step_3(event: PipelineEvent) -> bool:
        return isinstance(event, Metrics) and event.step == 3

    run_until_stopped(store, assign(with_training(checkpoint_every=1), upload(store, conversations(12))), at_step_3)
    for spec, rows in ((with_training(checkpoint_every=1, seed=1), 12), (with_training(checkpoint_every=1), 11)):
        _, recorded = run_job(store, assign(spec, upload(store, conversations(rows)), attempt=2))
        assert [event.step for event in recorded.events if isinstance(event, Metrics)] == [1, 2, 3, 4, 5, 6]


def test_a_failed_run_removes_its_checkpoint(store: ArtifactStore) -> None:
    spec = with_training(checkpoint_every=1, learning_rate=1.0, max_grad_norm=1e30, steps=400)
    recorded = RecordedEvents()

    def spoil(event: PipelineEvent) -> bool:
        recorded(event)
        if isinstance(event, Metrics) and event.step == 2:
            raise TrainingFailed("the test says so", code="loss_exploded")
        return False

    with pytest.raises(TrainingFailed):
        run_job(store, assign(spec, upload(store, conversations(12))), stop=spoil)
    assert not list((store.root / "jobs" / JOB / "checkpoints").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_4_bit_weights_are_rejected_before_anything_is_loaded(store: ArtifactStore) -> None:
    recorded = RecordedEvents()
    with pytest.raises(InvalidInput) as caught:
        run_job(
            store,
            assign(with_training(method="qlora"), upload(store, conversations(4))),
            stop=lambda event: recorded(event) or False,
        )
    assert (caught.value.code, caught.value.param) == ("qlora_needs_cuda", "training.method")
    assert set(recorded.finished) == {("screening", None)}
