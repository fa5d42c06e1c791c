"""The whole story on one page: an assignment goes in; figures, an adapter and a report come out.

base model -> dataset -> figures before -> robustness -> learning plans and training -> figures after -> report.
Runs without any service: the store and `emit` come in as arguments. Not here: how each step is done (core.steps).
"""

from core import measuring, steps
from core.catalog import check_arms
from core.lm.adapter import choose
from core.lm.modules import find_modules
from core.prepared import Prepared
from core.security.prompts import choose as choose_prompts
from core.spec.analysis import AnalysisSpec
from core.spec.job import Assignment
from core.spec.models import BaseModelEntry
from core.spec.results import Outcome
from core.spec.state import Stage
from core.spec.strategy import analysis_of
from core.stages import Emit, Stages
from core.storage import ArtifactStore

_ONCE: tuple[Stage, ...] = ("base_model", "dataset", "before", "report")
_EACH_ANALYSIS: tuple[Stage, ...] = ("robustness",)
_EACH_ARM: tuple[Stage, ...] = ("training", "after")


def run(assignment: Assignment, *, store: ArtifactStore, model: BaseModelEntry, device: str, emit: Emit) -> Outcome:
    """Fine-tune one model safely: load, measure, plan, train, attack, judge, report, store.

    Raises:
        SecureTuneError: the job cannot be done; its code and message are for the user.
        Interrupted: `emit` asked to stop. What is stored so far is taken up by the next attempt.
    """
    spec = assignment.spec
    check_arms(model, spec)
    analyses = _analyses(assignment)
    planned = _ONCE + _EACH_ANALYSIS * len(analyses) + _EACH_ARM * len(spec.arms)
    stages = Stages(store, assignment.job_id, emit, planned)

    base = stages.run("base_model", lambda: steps.load_base(model, device, spec.training))
    modules = choose(find_modules(base.model), spec.training.lora)
    steps.check(assignment, model, base, modules, emit)
    prompts = choose_prompts(spec.security, base.folder, steps.brought(assignment, store))
    benchmarks = steps.benchmarks(assignment)
    data = stages.run("dataset", lambda: steps.encode(assignment, store, base, stages, emit))
    job = Prepared(assignment, model, store, stages, emit, base, modules, prompts, data, benchmarks)

    before = measuring.before(job)
    maps = {analysis: steps.robustness(job, analysis) for analysis in analyses}
    trained = [steps.training(job, arm, maps) for arm in spec.arms]
    after = [measuring.after(job, arm, result, before) for arm, result in zip(spec.arms, trained, strict=True)]
    return stages.run("report", lambda: steps.report(job, [before, *after], list(maps.values()), trained))


def _analyses(assignment: Assignment) -> list[AnalysisSpec]:
    """Each different analysis that an arm rests on, once."""
    wanted = (analysis_of(arm) for arm in assignment.spec.arms)
    return list(dict.fromkeys(analysis for analysis in wanted if analysis))
