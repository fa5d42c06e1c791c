"""The whole story on one page: an assignment goes in; figures, an adapter and a report come out.

screening -> base model -> dataset -> figures before -> robustness -> learning plans and training -> figures after ->
gate and report. Runs without any service: the store and `emit` come in as arguments. Not here: how each step is done
(core.pipeline.screen, core.pipeline.steps, core.pipeline.evaluate, core.pipeline.report).
"""

from core.attacks.prompts import choose as choose_prompts
from core.catalog import check_runs
from core.lm.adapter import choose
from core.lm.modules import find_modules
from core.pipeline import evaluate as measuring
from core.pipeline import report as reporting
from core.pipeline import screen as screened
from core.pipeline import steps
from core.pipeline.context import Prepared
from core.pipeline.stages import Emit, Stages
from core.schemas.analysis import AnalysisSpec
from core.schemas.job import Assignment, ScreenAssignment
from core.schemas.models import BaseModelEntry
from core.schemas.results import Outcome
from core.schemas.state import Stage
from core.schemas.strategy import analysis_of
from core.storage import ArtifactStore

_ONCE: tuple[Stage, ...] = ("screening", "base_model", "dataset", "before", "report")
_EACH_ANALYSIS: tuple[Stage, ...] = ("robustness",)
_EACH_RUN: tuple[Stage, ...] = ("training", "after")


def run(assignment: Assignment, *, store: ArtifactStore, model: BaseModelEntry, device: str, emit: Emit) -> Outcome:
    """Fine-tune one model safely: screen, load, measure, plan, train, attack, judge, decide, report, store.

    Raises:
        SecureTuneError: the job cannot be done; its code and message are for the user.
        Interrupted: `emit` asked to stop. What is stored so far is taken up by the next attempt.
    """
    spec, policy = assignment.spec, assignment.policy.policy.screening
    check_runs(model, spec)
    analyses = _analyses(assignment)
    planned = _ONCE + policy.by_model + _EACH_ANALYSIS * len(analyses) + _EACH_RUN * len(spec.runs)
    stages = Stages(store, assignment.job_id, emit, planned)

    looked = screened.look(assignment.dataset, policy, store, stages)
    base = stages.run("base_model", lambda: steps.load_base(model, device, spec.training))
    modules = choose(find_modules(base.model), spec.training.lora)
    steps.check(assignment, model, base, modules, emit)
    prompts = choose_prompts(spec.security, base.folder, steps.brought(assignment, store))
    benchmarks = steps.benchmarks(assignment)
    data = stages.run("dataset", lambda: steps.encode(assignment, looked.rows, store, base, stages))
    job = screened.asked(
        Prepared(assignment, model, store, stages, emit, base, modules, prompts, data, benchmarks, looked.result)
    )

    before = measuring.before(job)
    maps = {analysis: steps.robustness(job, analysis) for analysis in analyses}
    trained = [steps.training(job, run, maps) for run in spec.runs]
    after = [measuring.after(job, run, result, before) for run, result in zip(spec.runs, trained, strict=True)]
    return stages.run("report", lambda: reporting.report(job, [before, *after], list(maps.values()), trained))


def screen(
    assignment: ScreenAssignment, *, store: ArtifactStore, model: BaseModelEntry | None, device: str, emit: Emit
) -> Outcome:
    """Look through a dataset, and train nothing. With a model, it is asked about the rows too.

    Raises:
        SecureTuneError: it cannot be done; its code and message are for the user.
        Interrupted: `emit` asked to stop.
    """
    policy = assignment.spec.screening
    asking: tuple[Stage, ...] = ("base_model", "dataset", *policy.by_model) if model and policy.by_model else ()
    stages = Stages(store, assignment.job_id, emit, ("screening", *asking))
    looked = screened.look(assignment.dataset, policy, store, stages, enforced=False)
    result = looked.result
    if model and asking:
        base = stages.run("base_model", lambda: steps.load_base(model, device))
        result = screened.asked_alone(looked, base, stages)
    screened.tell(result, emit)
    return Outcome(artifacts=(screened.put(result, assignment, store),))


def _analyses(assignment: Assignment) -> list[AnalysisSpec]:
    """Each different analysis that an arm rests on, once."""
    wanted = (analysis_of(run) for run in assignment.spec.runs)
    return list(dict.fromkeys(analysis for analysis in wanted if analysis))
