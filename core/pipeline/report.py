"""The report stage: applies the gate to every run and writes the files that the user gets.

Not here: how the gate decides (core.gate), the contents of reports (core.reports), signing (worker).
"""

from collections.abc import Sequence
from pathlib import Path

from core.attacks.count import power_note
from core.gate import decide
from core.lm.device import name_device
from core.lm.weights import digest_weights
from core.pipeline.cache import software
from core.pipeline.context import JobContext
from core.reports.card import card
from core.reports.examples import changed
from core.reports.limits import not_covered
from core.reports.render import html
from core.schemas.evaluation import Evaluation, Figure
from core.schemas.events import GateDecided
from core.schemas.gate import GateDecision
from core.schemas.job import JobSpec
from core.schemas.results import JudgedWeights, Outcome, PrecisionUsed, Report, StoredFile, TrainingResult
from core.schemas.robustness import RobustnessResult
from core.storage.bundle import write_tar

_JSON = "application/json"
_MARKDOWN = "text/markdown; charset=utf-8"
_PARQUET = "application/vnd.apache.parquet"


def write_report(
    job: JobContext,
    evaluations: Sequence[Evaluation],
    maps: Sequence[RobustnessResult],
    trained: Sequence[TrainingResult],
) -> Outcome:
    """Write the report, model card, robustness maps, screening findings, raw answers, and the adapter of the job's own
    run, or its whole model after full fine-tuning.

    The adapters of baselines are not offered for download: they only serve for comparison. A repair tries several ways,
    and offers the first one that the gate releases.
    """
    figures = [figure for evaluation in evaluations for figure in evaluation.figures]
    measured = [evaluation.measured for evaluation in evaluations if evaluation.measured is not None]
    gate = tuple(decide(result.run, figures, job.assignment.policy, measured) for result in trained)
    for decision in gate:
        job.emit(GateDecided(run=decision.run, outcome=decision.outcome, reasons=decision.reasons))
    if job.assignment.spec.repairs is not None:
        order = sorted(range(len(gate)), key=lambda place: gate[place].outcome != "released")
        gate, trained = tuple(gate[place] for place in order), [trained[place] for place in order]
        evaluations = [evaluations[0], *(evaluations[place + 1] for place in order)]
    document = _report(job, evaluations, maps, trained, gate)
    # Imported here so that training does not wait for matplotlib.
    from core.reports.pictures import draw  # noqa: PLC0415

    pictures = draw(document)
    model_card = card(document)
    answers = "".join(f"{row.model_dump_json()}\n" for each in evaluations for row in each.answers)
    task_answers = "".join(f"{row.model_dump_json()}\n" for each in evaluations for row in each.tasks)
    robustness = "[" + ",".join(result.model_dump_json() for result in maps) + "]"
    readme = _put(job, f"{job.trained_name}/README.md", model_card, _MARKDOWN)
    files = (*trained[0].adapter, readme)
    return Outcome(
        artifacts=(
            _put(job, "report.json", document.model_dump_json(indent=1), _JSON),
            _put(job, "report.html", html(document, changed(evaluations), pictures), "text/html; charset=utf-8"),
            _put(job, "model_card.md", model_card, _MARKDOWN),
            _put(job, "robustness.json", robustness, _JSON),
            _put(job, "screening.json", job.screening.model_dump_json(indent=1), _JSON),
            _put(job, "answers.jsonl", answers, "application/jsonl"),
            _put(job, "task_answers.jsonl", task_answers, "application/jsonl"),
            *_tables(job, evaluations),
            *(_put(job, f"pictures/{name}.svg", picture.svg, "image/svg+xml") for name, picture in pictures.items()),
            _bundle(job, files),
            *files,
        ),
        gate=gate[0],
        weights=tuple(
            JudgedWeights(sha256=_digest(job, result), gate=decision)
            for result, decision in zip(trained, gate, strict=True)
        ),
    )


def _digest(job: JobContext, result: TrainingResult) -> str:
    paths = [job.store.path(file.key) for file in result.adapter]
    return digest_weights(path for path in paths if path.suffix == ".safetensors")


def _report(
    job: JobContext,
    evaluations: Sequence[Evaluation],
    maps: Sequence[RobustnessResult],
    trained: Sequence[TrainingResult],
    gate: tuple[GateDecision, ...],
) -> Report:
    spec = job.assignment.spec
    rates = spec.training.model_copy(update={"learning_rate": job.learning_rate})
    figures: list[Figure] = [figure for evaluation in evaluations for figure in evaluation.figures]
    note = power_note(figures, spec.security.threshold)
    return Report(
        job_id=job.assignment.job_id,
        spec=_in_order(spec, trained).model_copy(update={"training": rates}),
        model=job.base.identity,
        dataset=job.assignment.dataset,
        data=job.data.summary,
        prompt_set=job.prompts.name,
        figures=tuple(figures),
        categories=tuple(rate for evaluation in evaluations for rate in evaluation.categories),
        agreements=tuple(agreement for evaluation in evaluations for agreement in evaluation.agreements),
        judges=tuple(use for evaluation in evaluations for use in evaluation.judges),
        notes=() if note is None else (note,),
        screening=job.screening,
        policy=job.assignment.policy,
        gate=gate,
        not_covered=not_covered(spec, figures),
        robustness=tuple(maps),
        training=tuple(trained),
        weights=tuple(evaluation.weights for evaluation in evaluations if evaluation.weights),
        software=software() | job.engine,
        device=name_device(job.base.device),
        precision=PrecisionUsed(weights=job.base.weights, speedup=job.base.speedup),
    )


def _in_order(spec: JobSpec, trained: Sequence[TrainingResult]) -> JobSpec:
    """The order with its runs as the report has them: a repair's first one is the one that it offers."""
    runs = {run.label: run for run in spec.runs}
    first, *others = (runs[result.run] for result in trained)
    return spec.model_copy(update={"strategy": first, "compare": tuple(others)})


def _tables(job: JobContext, evaluations: Sequence[Evaluation]) -> tuple[StoredFile, StoredFile]:
    """The raw answers again as Parquet, for programs that read many jobs."""
    from core.reports.parquet import answers_parquet, task_answers_parquet  # noqa: PLC0415

    with job.store.staging() as folder:
        answers, tasks = folder / "answers.parquet", folder / "task_answers.parquet"
        answers_parquet(evaluations, answers)
        task_answers_parquet(evaluations, tasks)
        return _adopt(job, answers, _PARQUET, gated=False), _adopt(job, tasks, _PARQUET, gated=False)


def _bundle(job: JobContext, files: Sequence[StoredFile]) -> StoredFile:
    name = job.trained_name
    inside = {file.name.removeprefix(f"{name}/"): job.store.path(file.key) for file in files}
    with job.store.staging() as folder:
        archive = folder / f"{name}.tar"
        write_tar(archive, inside)
        return _adopt(job, archive, "application/x-tar", gated=True)


def _put(job: JobContext, name: str, text: str, media_type: str) -> StoredFile:
    gated = name.startswith(f"{job.trained_name}/")
    key = f"{job.folder}/{name}"
    return job.store.put(key, text.encode(), name=name, media_type=media_type, gated=gated)


def _adopt(job: JobContext, path: Path, media_type: str, *, gated: bool) -> StoredFile:
    return job.store.adopt(f"{job.folder}/{path.name}", path, name=path.name, media_type=media_type, gated=gated)
