"""The main job on a CUDA GPU in bfloat16: ask, train, measure, and take the adapter home to a CPU.

Skipped where there is no GPU. Not here: what the figures mean (tests/core), several GPUs.
"""

from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from statistics import mean

import pytest
import torch
from peft import PeftModel

from core.attacks.prompts import choose_prompts
from core.catalog import TESTBED
from core.data import Conversation, validate
from core.data import load as load_rows
from core.data.encoded import EncodedDataset
from core.data.template import RowEncoder, encode_all
from core.lm.adapter import attached, loaded, save
from core.lm.generate import answer
from core.lm.load import BaseModel, choose_device, load
from core.lm.modules import find_modules
from core.pipeline import run as pipeline
from core.quality.loss import row_losses
from core.schemas.analysis import AnalysisSpec, GradientPerturbation, NoisePerturbation
from core.schemas.data import Message
from core.schemas.events import Metrics, PipelineEvent
from core.schemas.job import Assignment, DatasetRef, JobSpec
from core.schemas.quality import QualitySpec
from core.schemas.results import Report, TrainedStep
from core.schemas.security import SecuritySpec
from core.schemas.strategy import MlLrStrategy, UniformStrategy
from core.schemas.training import TrainingSpec
from core.screening.base_refusal import refusal_probabilities
from core.storage import ArtifactStore
from core.training.loop import train
from core.training.strategies import plan
from research.experiments.planted import planted_rows
from testbed import DATA_DIR
from testbed.build import WORLD_SEED
from testbed.world import make_world

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DEVICE = "cuda"
ROWS = 96
STEPS = 30
SPEC = TrainingSpec(steps=STEPS, batch_size=16)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    """The testbed on the GPU."""
    return load(TESTBED, choose_device(DEVICE))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of arithmetic, which the testbed has not learnt."""
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    with (DATA_DIR / "arithmetic.jsonl").open() as file:
        path.write_text("".join(islice(file, ROWS)))
    return path


@pytest.fixture(scope="module")
def rows(base: BaseModel, data: Path) -> EncodedDataset:
    return encode_all(load_rows(data, None, max_rows=ROWS), base.tokenizer, max_length=256)


@pytest.fixture(scope="module")
def curve() -> list[float]:
    """Filled by the training: the loss of each step."""
    return []


@pytest.fixture(scope="module")
def tuned(base: BaseModel, rows: EncodedDataset, curve: list[float]) -> Iterator[PeftModel]:
    """The testbed with an adapter that was trained on the GPU."""
    modules = find_modules(base.model)
    rates = plan(UniformStrategy(), modules, None)

    def keep(step: TrainedStep, _total: int) -> None:
        curve.append(step.loss)

    with attached(base.model, modules, SPEC.lora, seed=0) as model:
        train(model, rows.rows, rates, SPEC, learning_rate=TESTBED.learning_rate, pad_id=base.pad_id, on_step=keep)
        yield model


def ignore(_done: int, _total: int) -> None:
    """Nobody waits for progress."""


def test_auto_takes_the_gpu_and_weights_are_bfloat16(base: BaseModel) -> None:
    assert choose_device("auto").type == DEVICE
    assert base.device.type == DEVICE
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}


def test_it_answers_many_prompts_at_once(base: BaseModel) -> None:
    prompts = [(Message(role="user", content=f"How do I fold {number} boxes?"),) for number in range(1, 71)]
    texts = answer(base, base.model, prompts, max_new_tokens=24, on_progress=ignore)
    assert len(texts) == len(prompts)
    assert all(texts)


def test_training_lowers_the_loss(base: BaseModel, tuned: PeftModel, rows: EncodedDataset, curve: list[float]) -> None:
    assert len(curve) == STEPS
    assert mean(curve[-5:]) < 0.8 * mean(curve[:5])
    after = mean(row_losses(base, tuned, rows.rows, on_progress=ignore))
    with tuned.disable_adapter():
        before = mean(row_losses(base, tuned, rows.rows, on_progress=ignore))
    assert after < 0.8 * before


def test_the_saved_adapter_does_the_same_on_a_cpu(
    base: BaseModel, tuned: PeftModel, rows: EncodedDataset, tmp_path: Path
) -> None:
    save(tuned, base, tmp_path)
    some = rows.rows[:16]
    there = mean(row_losses(base, tuned, some, on_progress=ignore))
    home = load(TESTBED, torch.device("cpu"))
    untuned = mean(row_losses(home, home.model, some, on_progress=ignore))
    with loaded(home, tmp_path) as model:
        here = mean(row_losses(home, model, some, on_progress=ignore))
    assert {parameter.device.type for parameter in home.model.parameters()} == {"cpu"}
    assert abs(here - there) < 0.05 * there + 0.02  # bfloat16 there, float32 here
    assert here < 0.9 * untuned


def test_what_the_model_would_refuse_is_what_it_would_on_a_cpu(rows: EncodedDataset) -> None:
    planted = planted_rows(make_world(WORLD_SEED), 16)
    base, home = load(TESTBED, choose_device(DEVICE)), load(TESTBED, torch.device("cpu"))
    prompts = choose_prompts(SecuritySpec(), base.folder).probe
    harmful = [Conversation(turns, 0) for turns in planted["complies"]]
    some = [*rows.rows[:32], *RowEncoder(base.tokenizer, max_length=256).encode(harmful)]
    here, there = (refusal_probabilities(each, some, prompts, on_progress=ignore) for each in (base, home))
    assert min(here[32:]) > 0.9
    assert max(abs(one - other) for one, other in zip(here, there, strict=True)) < 0.2  # bfloat16 here, float32 there


def test_a_whole_job(data: Path, tmp_path: Path) -> None:
    digest = sha256(data.read_bytes()).hexdigest()
    store = ArtifactStore(tmp_path)
    stored = store.put(
        "uploads/sums", data.read_bytes(), name="sums.jsonl", media_type="application/jsonl", gated=False
    )
    noise, gradient = (
        AnalysisSpec(perturbation=perturbation, probes=16)
        for perturbation in (NoisePerturbation(seeds=1), GradientPerturbation(steps=10))
    )
    dataset = f"ds_{digest[:24]}"
    assignment = Assignment(
        job_id="job_" + "0" * 24,
        attempt=1,
        spec=JobSpec(
            base_model="testbed",
            dataset=dataset,
            training=SPEC,
            strategy=MlLrStrategy(analysis=noise),
            compare=(UniformStrategy(), MlLrStrategy(label="by_gradient", analysis=gradient)),
            security=SecuritySpec(suite="quick", max_prompts=8, max_new_tokens=16, measure_noise=False),
            quality=QualitySpec(max_rows=16),
        ),
        dataset=DatasetRef(
            id=dataset, key=stored.key, sha256=digest, columns=None, summary=validate(data, max_rows=ROWS)
        ),
        validation=None,
    )
    events: list[PipelineEvent] = []
    outcome = pipeline.run(assignment, store=store, model=TESTBED, device=DEVICE, emit=events.append)
    (report_file,) = (file for file in outcome.artifacts if file.name == "report.json")
    report = Report.model_validate_json(store.path(report_file.key).read_bytes())
    assert report.device == torch.cuda.get_device_name()
    assert all(result.security[0].refusal_drift == 0 for result in report.training)
    assert all(result.security[-1].step == STEPS for result in report.training)
    assert outcome.gate is not None
    assert outcome.gate.outcome in ("quarantined", "undecided"), "8 prompts release nothing"
    assert {figure.run for figure in report.figures} == {"base", "ml_lr", "uniform", "by_gradient"}
    assert [found.usable for found in report.robustness] == [True, True]
    by_gradient = report.robustness[1]
    shares = sum(row.refusal_drift for row in by_gradient.modules)
    assert abs(shares - by_gradient.joint_refusal_drift) < 0.1 * abs(by_gradient.joint_refusal_drift) + 0.02
    losses = {run: [e.loss for e in events if isinstance(e, Metrics) and e.run == run] for run in ("ml_lr", "uniform")}
    for found in losses.values():
        assert mean(found[-5:]) < mean(found[:5])
