"""How long a job takes to evaluate the testbed before and after training: answers, verdicts and task figures.

A whole job runs in a fresh store each time, with the least training there is; what is reported are its stages `before`
and `after`. Not here: training (research.bench.training), generation by itself (research.bench.generation).
"""

import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import torch
import typer

from core.catalog import TESTBED
from core.data import validate
from core.pipeline import run as pipeline
from core.schemas.events import PipelineEvent, StageFinished
from core.schemas.job import Assignment, DatasetRef, JobSpec
from core.schemas.results import Report
from core.schemas.security import SecuritySpec, SuiteName
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.storage import ArtifactStore
from research.bench.figures import benchmark, spread
from testbed import DATA_DIR

_TARGET_SECONDS = 60.0


def main(
    *,
    suite: Annotated[SuiteName, typer.Option(help="How much is asked.")] = "standard",
    runs: Annotated[int, typer.Option(min=1, help="Whole evaluations.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training before the second half.")] = 100,
    max_prompts: Annotated[int, typer.Option(min=0, help="Prompts of each kind; 0 for the suite's own.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0 leaves it the choice.")] = 0,
) -> None:
    """Seconds of the evaluations before and after, and of both together."""
    with benchmark("evaluation") as figures:
        if threads:
            torch.set_num_threads(threads)
        before, after = zip(*(_run(suite, steps, max_prompts, figures) for _ in range(runs)), strict=True)
        figures["suite"] = suite
        figures["before_seconds"] = spread(before, 1)
        figures["after_seconds"] = spread(after, 1)
        target = {"target": _TARGET_SECONDS} if suite == "standard" else {}
        figures["seconds"] = spread([sum(both) for both in zip(before, after, strict=True)], 1) | target


def _run(suite: SuiteName, steps: int, max_prompts: int, figures: dict[str, object]) -> tuple[float, float]:
    """Seconds before and after."""
    found: dict[str, float] = {}

    def emit(event: PipelineEvent) -> None:
        if isinstance(event, StageFinished):
            found[event.stage] = event.seconds

    options: dict[str, object] = {"suite": suite, "measure_noise": False}
    security = SecuritySpec.model_validate(options | ({"max_prompts": max_prompts} if max_prompts else {}))
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        data = (DATA_DIR / "instructions.jsonl").read_bytes()
        digest = sha256(data).hexdigest()
        stored = store.put("data", data, name="instructions.jsonl", media_type="application/jsonl", gated=False)
        dataset = DatasetRef(
            id=f"ds_{digest[:24]}",
            key=stored.key,
            sha256=digest,
            columns=None,
            summary=validate(store.path(stored.key), max_rows=1_000_000),
        )
        spec = JobSpec(
            base_model=TESTBED.name,
            dataset=dataset.id,
            training=TrainingSpec(steps=steps),
            strategy=UniformStrategy(),
            security=security,
        )
        assignment = Assignment(job_id=f"job_{'0' * 24}", attempt=1, spec=spec, dataset=dataset, validation=None)
        outcome = pipeline.run(assignment, store=store, model=TESTBED, device="cpu", emit=emit)
        (file,) = [file for file in outcome.artifacts if file.name == "report.json"]
        report = Report.model_validate_json(store.path(file.key).read_bytes())
    figures["answers"] = {use.run: use.judged for use in report.judges}
    return found["before"], found["after"]


if __name__ == "__main__":
    typer.run(main)
