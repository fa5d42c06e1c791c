"""Used by the tests of the pipeline: small jobs on the testbed, run against a store without any service."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from core.catalog import TESTBED
from core.data import Conversation, validate
from core.errors import Interrupted
from core.lm.load import BaseModel
from core.pipeline.context import Rows
from core.pipeline.inputs import load_dataset
from core.pipeline.prepare import encode_rows
from core.pipeline.run import run
from core.pipeline.stages import Stages
from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.evaluation import Figure
from core.schemas.events import Figures, PipelineEvent, Progress, StageFinished, Warned
from core.schemas.job import Assignment, DatasetRef, JobSpec
from core.schemas.models import BaseModelEntry, FolderSource
from core.schemas.policy import Policy, PolicyRef, RateRule
from core.schemas.quality import QualitySpec
from core.schemas.results import Outcome
from core.schemas.security import SecuritySpec
from core.schemas.strategy import MlLrStrategy, UniformStrategy
from core.schemas.training import LoraSpec, TrainingSpec
from core.storage import ArtifactStore

JOB = "job_" + "0" * 24
NOISE = AnalysisSpec(perturbation=NoisePerturbation(seeds=1, relative_norm=10.0), probes=8, unit="module")
SPEC = JobSpec(
    base_model="testbed",
    dataset="ds_" + "0" * 24,
    training=TrainingSpec(steps=6, batch_size=4, lora=LoraSpec(rank=4, alpha=8)),
    strategy=MlLrStrategy(analysis=NOISE),
    security=SecuritySpec(suite="quick", max_prompts=4, max_new_tokens=12, threshold=0.9, measure_noise=False),
    quality=QualitySpec(max_rows=4),
    compare=(UniformStrategy(),),
)
OPEN = Policy(attacks=RateRule(max_rate=1.0), over_refusal=None, measure=None)
"""A policy that releases everything, however few answers there are."""
Stop = Callable[[PipelineEvent], bool]


def upload(
    store: ArtifactStore, rows: Iterable[Conversation | Sequence[tuple[str, str]]], *, one_line: bool = False
) -> DatasetRef:
    """Store rows as the service does, and return their reference; `one_line` as an array without line breaks."""
    lines = []
    for row in rows:
        turns = [(turn.role, turn.content) for turn in row.messages] if isinstance(row, Conversation) else row
        lines.append(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}))
    content = (f"[{', '.join(lines)}]" if one_line else "\n".join(lines)).encode()
    digest = sha256(content).hexdigest()
    stored = store.put(f"uploads/{digest}", content, name="rows.jsonl", media_type="application/jsonl", gated=False)
    return DatasetRef(
        id=f"ds_{digest[:24]}",
        key=stored.key,
        sha256=digest,
        columns=None,
        summary=validate(store.path(stored.key), max_rows=1_000_000),
    )


def encoded_rows(
    assignment: Assignment, store: ArtifactStore, base: BaseModel, recorded: "RecordedEvents | None" = None
) -> Rows:
    """The rows of a job, encoded in their stage."""
    emit = recorded or RecordedEvents()
    stages = Stages(store, assignment.job_id, emit, ("dataset",))
    rows = load_dataset(store, assignment.dataset)
    return stages.run("dataset", lambda: encode_rows(assignment, rows, store, base, stages))


def with_few_probes(folder: Path, count: int) -> BaseModelEntry:
    """A copy of the testbed with so many probe prompts of each kind, because safeguards collect answers to all."""
    assert isinstance(TESTBED.source, FolderSource)
    copy = shutil.copytree(TESTBED.source.path, folder)
    path = copy / "security_prompts.json"
    prompts = json.loads(path.read_text())
    prompts["probe"] = {kind: texts[:count] for kind, texts in prompts["probe"].items()}
    path.write_text(json.dumps(prompts))
    return TESTBED.model_copy(update={"source": FolderSource(path=copy)})


def with_training(**fields: object) -> JobSpec:
    """The usual job with other training options."""
    return SPEC.model_copy(update={"training": SPEC.training.model_copy(update=fields)})


def assign(
    spec: JobSpec, dataset: DatasetRef, *, job_id: str = JOB, attempt: int = 1, validation: DatasetRef | None = None
) -> Assignment:
    """What a training process receives."""
    named = {"dataset": dataset.id, "validation_dataset": validation and validation.id}
    whole = spec.model_copy(update=named)
    return Assignment(
        job_id=job_id,
        attempt=attempt,
        spec=whole,
        dataset=dataset,
        validation=validation,
        policy=PolicyRef(policy=OPEN),
    )


@dataclass
class RecordedEvents:
    """Records the events of a job, and stops the job when `stop` returns true."""

    stop: Stop | None = None
    events: list[PipelineEvent] = field(default_factory=list)

    def __call__(self, event: PipelineEvent) -> None:
        self.events.append(event)
        if self.stop and self.stop(event):
            raise Interrupted("the test says stop")

    @property
    def finished(self) -> dict[tuple[str, str | None], bool]:
        """For each finished stage, whether a stored result was used."""
        done = [event for event in self.events if isinstance(event, StageFinished)]
        return {(event.stage, event.run): event.reused for event in done}

    @property
    def figures(self) -> list[Figure]:
        """All figures that were emitted."""
        return [figure for event in self.events if isinstance(event, Figures) for figure in event.figures]

    @property
    def fractions(self) -> list[float]:
        """The progress of the job, in the order in which it was emitted."""
        return [event.fraction for event in self.events if isinstance(event, Progress)]

    @property
    def warnings(self) -> list[Warned]:
        """All warnings that were emitted."""
        return [event for event in self.events if isinstance(event, Warned)]


def run_job(
    store: ArtifactStore, assignment: Assignment, *, model: BaseModelEntry = TESTBED, stop: Stop | None = None
) -> tuple[Outcome, RecordedEvents]:
    """Run a job to its end."""
    recorded = RecordedEvents(stop)
    return run(assignment, store=store, model=model, device="cpu", emit=recorded), recorded


def run_until_stopped(
    store: ArtifactStore, assignment: Assignment, stop: Stop, *, model: BaseModelEntry = TESTBED
) -> RecordedEvents:
    """Run a job until `stop` stops it."""
    recorded = RecordedEvents(stop)
    try:
        run(assignment, store=store, model=model, device="cpu", emit=recorded)
    except Interrupted:
        return recorded
    raise AssertionError("the job was never stopped")


def artifact_keys(outcome: Outcome) -> dict[str, Path]:
    """Keys of the artifacts, by name."""
    return {file.name: Path(file.key) for file in outcome.artifacts}
