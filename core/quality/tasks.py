"""The tasks of a job, and whether this worker can measure them.

Covers: default tasks of each domain, benchmarks that are not listed, a missing harness. It imports no torch. Not here:
measuring (core.quality.evaluate), reading benchmarks (core.data.benchmarks).
"""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from core.errors import InvalidInput, Unavailable
from core.schemas.quality import (
    BenchmarkEntry,
    Domain,
    ExactMatch,
    LmEval,
    MultipleChoice,
    QualitySpec,
    QualityTask,
    RougeL,
)

_PARAM = "quality.tasks"
_UNLIMITED = 200
"""Estimated number of questions of a task without a limit: only the harness knows it."""
_BY_DOMAIN: dict[Domain, tuple[QualityTask, ...]] = {
    "general": (RougeL(),),
    "mathematics": (ExactMatch(extract="number"),),
    "medical": (RougeL(),),
    "legal": (RougeL(),),
    "finance": (ExactMatch(extract="number"), RougeL()),
}


def tasks_for(spec: QualitySpec, benchmarks: Sequence[BenchmarkEntry]) -> tuple[QualityTask, ...]:
    """The tasks that a job names, or those of its domain with the benchmarks that are listed for the domain."""
    return resolve_tasks(spec, (entry.name for entry in benchmarks if entry.domain == spec.domain))


def resolve_tasks(spec: QualitySpec, domain_benchmarks: Iterable[str]) -> tuple[QualityTask, ...]:
    """The tasks that a job names, or those of its domain with these benchmarks."""
    if spec.tasks is not None:
        return spec.tasks
    return (*_BY_DOMAIN[spec.domain], *(MultipleChoice(benchmark=name) for name in domain_benchmarks))


def check_tasks(spec: QualitySpec, benchmarks: Sequence[BenchmarkEntry]) -> None:
    """Check before anything is computed that every task can be measured here, and that no two have the same figure.

    Raises:
        InvalidInput: code `unknown_benchmark` or `task_named_twice`.
        Unavailable: code `lm_eval_missing`.
    """
    known = sorted(entry.name for entry in benchmarks)
    tasks = tasks_for(spec, benchmarks)
    figures: set[str] = set()
    for task in tasks:
        if isinstance(task, MultipleChoice) and task.benchmark not in known:
            listed = f"It has: {', '.join(known)}." if known else "It lists none."
            raise InvalidInput(
                f"{task.benchmark!r} is not a benchmark of this server. {listed}",
                code="unknown_benchmark",
                param=_PARAM,
            )
        if (figure := _figure_name(task)) in figures:
            raise InvalidInput(
                f"quality.tasks names {figure} twice with different options, and the report could not distinguish "
                "them. Name it once.",
                code="task_named_twice",
                param=_PARAM,
            )
        figures.add(figure)
    if any(isinstance(task, LmEval) for task in tasks):
        check_harness()


def needs_answers(tasks: Iterable[QualityTask]) -> bool:
    """Whether a task compares answers to validation rows."""
    return any(isinstance(task, ExactMatch | RougeL) for task in tasks)


def estimate_size(task: LmEval) -> int:
    """Estimate the number of questions, for progress."""
    return task.limit or _UNLIMITED


def check_harness() -> None:
    """Check that lm-evaluation-harness is installed.

    Raises:
        Unavailable: code `lm_eval_missing`.
    """
    if find_spec("lm_eval") is None:
        raise Unavailable(
            "A task needs lm-evaluation-harness, which this worker does not have: install securetune[lm-eval], or "
            "leave the task out.",
            code="lm_eval_missing",
            param=_PARAM,
        )


def _figure_name(task: QualityTask) -> str:
    match task:
        case MultipleChoice(benchmark=name):
            return f"benchmark {name}"
        case LmEval(task=name):
            return f"lm_eval task {name}"
        case ExactMatch() | RougeL():
            return task.kind
