"""A whole job on one page: from an assignment to figures, a trained model and a report.

screening -> base model -> dataset -> evaluation before, and again for the noise -> robustness -> training -> evaluation
after -> report. Needs no service: the store and `emit` are arguments. Not here: what each stage does
(core.pipeline.screen, prepare, analyse, train, evaluate, report).
"""

from pathlib import Path

from core.attacks.prompts import choose_prompts, identify_prompts
from core.catalog import check_runs
from core.lm.adapter import choose
from core.lm.device import speeds_of
from core.lm.modules import find_modules
from core.modelfiles.state import entry_digest, files_digest
from core.pipeline import inputs, modelcheck, prepare
from core.pipeline import screen as screening
from core.pipeline.analyse import map_robustness
from core.pipeline.context import JobContext
from core.pipeline.evaluate import evaluate_base, evaluate_run
from core.pipeline.recommend import recommend
from core.pipeline.report import write_report
from core.pipeline.stages import Emit, Stages
from core.pipeline.train import train_run
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.schemas.job import Assignment, CheckAssignment, CheckRequest, ScreenAssignment
from core.schemas.modelcheck import ModelCheck
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome
from core.schemas.state import Stage
from core.schemas.training import LoraSpec
from core.storage import ArtifactStore

_ONCE: tuple[Stage, ...] = ("screening", "base_model", "dataset", "before", "report")
_FOR_NOISE: tuple[Stage, ...] = ("noise",)
_BY_MODEL: tuple[Stage, ...] = ("model_screening",)
_EACH_ANALYSIS: tuple[Stage, ...] = ("robustness",)
_EACH_RUN: tuple[Stage, ...] = ("training", "after")


def run(
    assignment: Assignment,
    *,
    store: ArtifactStore,
    model: BaseModelEntry,
    device: str,
    emit: Emit,
    vllm_python: Path | None = None,
) -> Outcome:
    """Fine-tune one model: screen, load, measure, plan, train, attack, judge, decide, report, store.

    `vllm_python` is the Python interpreter that has vLLM; without it, jobs that request vLLM fail.

    Raises:
        SecureTuneError: the job failed; the error's code and message are for the user.
        Interrupted: `emit` stopped the job. The next attempt uses the results that are stored so far.
    """
    spec, policy = assignment.spec, assignment.policy.policy.screening
    check_runs(model, spec)
    planned = (
        *_ONCE,
        *_BY_MODEL * bool(policy.model_checks),
        *_FOR_NOISE * spec.security.measure_noise,
        *_EACH_ANALYSIS * len(spec.analyses),
        *_EACH_RUN * len(spec.runs),
    )
    stages = Stages(store, assignment.job_id, emit, planned)

    screened = screening.screen_dataset(assignment.dataset, policy, store, stages)
    base = stages.run("base_model", lambda: prepare.load_base(model, device, stages, spec.training))
    modules = choose(find_modules(base.model), spec.training.lora)
    named = inputs.load_prompt_sets(assignment, store)
    prompts = choose_prompts(spec.security, base.folder, named)
    used = identify_prompts(spec.security, base.folder, named)
    context = SafeguardContext(spec, model, base, modules, prompts, BaseAnswers(base))
    prepare.check_job(assignment, context, emit, vllm_python)
    benchmarks = inputs.load_benchmarks(assignment)
    data = stages.run("dataset", lambda: prepare.encode_rows(assignment, screened.rows, store, base, stages))
    job = screening.screen_by_model(
        JobContext(
            assignment,
            model,
            store,
            stages,
            emit,
            base,
            modules,
            prompts,
            data,
            benchmarks,
            screened.result,
            used,
            vllm_python,
        )
    )

    before, again = evaluate_base(job)
    maps = {analysis: map_robustness(job, analysis) for analysis in spec.analyses}
    trained = [train_run(job, run, maps) for run in spec.runs]
    after = [evaluate_run(job, run, result, before, again) for run, result in zip(spec.runs, trained, strict=True)]
    return stages.run("report", lambda: write_report(job, [before, *after], list(maps.values()), trained))


def screen(
    assignment: ScreenAssignment, *, store: ArtifactStore, model: BaseModelEntry | None, device: str, emit: Emit
) -> Outcome:
    """Screen a dataset without training on it; with a model, also by the checks that need one.

    Raises:
        SecureTuneError: the job failed; the error's code and message are for the user.
        Interrupted: `emit` stopped the job.
    """
    policy = assignment.spec.screening
    by_model: tuple[Stage, ...] = ("base_model", "dataset", *_BY_MODEL) if model and policy.model_checks else ()
    stages = Stages(store, assignment.job_id, emit, ("screening", *by_model))
    screened = screening.screen_dataset(assignment.dataset, policy, store, stages, enforce=False)
    result = screened.result
    if model and by_model:
        base = stages.run("base_model", lambda: prepare.load_base(model, device, stages))
        result = screening.screen_only_by_model(screened, base, stages)
    screening.report_findings(result, emit)
    return Outcome(artifacts=(screening.store_result(result, assignment, store),))


def check(
    assignment: CheckAssignment, *, store: ArtifactStore, model: BaseModelEntry, device: str, emit: Emit
) -> Outcome:
    """Check a base model: load it, describe it, estimate memory, measure its refusals and speeds, recommend settings.

    Raises:
        SecureTuneError: the model cannot be used; the error has a code of docs/models.md.
        Interrupted: `emit` stopped the job.
    """
    spec = assignment.spec
    stages = Stages(store, assignment.job_id, emit, ("base_model", "dataset", "before", "training", "report"))
    base = stages.run("base_model", lambda: prepare.load_base(model, device, stages))
    for warning in base.warnings:
        emit(warning)
    measured_on, kind, weights = speeds_of(base), modelcheck.kind_of(base), base.weights
    shape, modules = modelcheck.shape_of(base), find_modules(base.model)
    template = stages.run("dataset", lambda: modelcheck.describe_template(base))
    refusals, answering = stages.run("before", lambda: modelcheck.measure_refusals(base, spec, stages))
    estimates = modelcheck.estimate_all(
        shape, spec, device=kind, weights=weights, memory_bytes=measured_on.memory_bytes
    )
    trained, training = choose(modules, LoraSpec(rank=spec.lora_rank)), None
    if any(each.fits and each.method == "lora" for each in estimates):
        training = stages.run("training", lambda: modelcheck.measure_training(base, trained, spec, stages))
    found = ModelCheck(
        request=CheckRequest(**spec.model_dump(exclude={"kind", "base_model"})),
        entry_sha256=entry_digest(model),
        state_sha256=files_digest(model.source),
        model=base.identity,
        weights=weights,
        device=kind,
        warnings=base.warnings,
        shape=shape,
        modules=modelcheck.list_modules(base, modules),
        template=template,
        memory=estimates,
        answers=modelcheck.estimate_answers(base, shape, spec),
        refusals=refusals,
        speeds=measured_on.model_copy(update={"speeds": stages.speeds}),
        answer_tokens_per_second=answering,
        training_tokens_per_second=training,
        settings=recommend(
            estimates, refusals, learning_rate=model.learning_rate, memory_bytes=measured_on.memory_bytes
        ),
    )
    return Outcome(artifacts=(stages.run("report", lambda: modelcheck.store_check(found, assignment, store)),))
