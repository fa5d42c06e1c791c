"""Which tasks a job is measured on, and whether they can be.

Covers: what each domain asks for, benchmarks that are not listed, the harness that is not installed. It reaches no
torch. Not here: the measuring (core.quality.evaluate), reading benchmarks (core.data.benchmarks).
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
_ANSWERED: dict[Domain, tuple[QualityTask, ...]] = {
    "general": (RougeL(),),
    "mathematics": (ExactMatch(extract="number"),),
    "medical": (RougeL(),),
    "legal": (RougeL(),),
    "finance": (ExactMatch(extract="number"), RougeL()),
}


def tasks_of(spec: QualitySpec, benchmarks: Sequence[BenchmarkEntry]) -> tuple[QualityTask, ...]:
    """The tasks that a job names, or those of its domain, with the benchmarks that are listed for it."""
    return chosen(spec, (entry.name for entry in benchmarks if entry.domain == spec.domain))


def chosen(spec: QualitySpec, benchmarks: Iterable[str]) -> tuple[QualityTask, ...]:
    """The same, of benchmarks that are known to be its domain's."""
    if spec.tasks is not None:
        return spec.tasks
    return (*_ANSWERED[spec.domain], *(MultipleChoice(benchmark=name) for name in benchmarks))


def check(spec: QualitySpec, benchmarks: Sequence[BenchmarkEntry]) -> None:
    """Find out before anything is computed whether every task can be measured here.

    Raises:
        InvalidInput: code `unknown_benchmark` or `task_named_twice`.
        Unavailable: code `lm_eval_missing`.
    """
    check_names(spec, benchmarks)
    if any(isinstance(task, LmEval) for task in tasks_of(spec, benchmarks)):
        check_harness()


def check_names(spec: QualitySpec, benchmarks: Sequence[BenchmarkEntry]) -> None:
    """The part that needs no worker: benchmarks are listed, and no two tasks give one figure.

    Raises:
        InvalidInput: code `unknown_benchmark` or `task_named_twice`.
    """
    known = sorted(entry.name for entry in benchmarks)
    figures: set[str] = set()
    for task in tasks_of(spec, benchmarks):
        if isinstance(task, MultipleChoice) and task.benchmark not in known:
            raise unknown(task.benchmark, known)
        if (figure := _figure(task)) in figures:
            raise InvalidInput(
                f"quality.tasks asks for {figure} twice, with other options: the report could not tell the two "
                "apart. Name it once.",
                code="task_named_twice",
                param=_PARAM,
            )
        figures.add(figure)


def unknown(name: str, known: Iterable[str]) -> InvalidInput:
    """The error for a benchmark that is not in the list."""
    there = ", ".join(known)
    return InvalidInput(
        f"{name!r} is not a benchmark of this server. " + (f"It has: {there}." if there else "It lists none."),
        code="unknown_benchmark",
        param=_PARAM,
    )


def check_harness() -> None:
    """Raises `Unavailable`, code `lm_eval_missing`, where lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise Unavailable(
            "A task needs lm-evaluation-harness, which this worker does not have: install securetune[lm-eval], or "
            "leave the task out.",
            code="lm_eval_missing",
            param=_PARAM,
        )


def _figure(task: QualityTask) -> str:
    match task:
        case MultipleChoice(benchmark=name):
            return f"benchmark {name}"
        case LmEval(task=name):
            return f"lm_eval task {name}"
        case ExactMatch() | RougeL():
            return task.kind
