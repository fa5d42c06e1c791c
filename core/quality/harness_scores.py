"""Converts the results of lm-evaluation-harness into figures and task answers.

Covers: metrics with intervals from their standard errors, groups and tags of tasks, questions that are scored singly.
Not here: running it (core.quality.harness).
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import cast

from core.quality.answers import TaskScores
from core.schemas.evaluation import Figure, TaskAnswer

_Z = 1.96
_RATES = frozenset({"acc", "acc_norm", "exact_match", "f1"})
"""Metrics whose interval is clipped to 0 and 1."""


def convert_results(task: str, output: Mapping[str, object], run: str) -> TaskScores:
    """Convert the figures of the task or group, or of all tasks that ran if the name is a tag."""
    results = cast(Mapping[str, Mapping[str, object]], output.get("results", {}))
    named = {task: results[task]} if _metrics(results.get(task, {})) else results
    figures = tuple(figure for name, metrics in named.items() for figure in _figures(name, metrics, run))
    samples = cast(Mapping[str, Sequence[Mapping[str, object]]], output.get("samples", {}))
    answers = [
        answer
        for name, metrics in named.items()
        if len(_metrics(metrics)) == 1
        for answer in _answers(name, next(iter(_metrics(metrics))), samples.get(name, ()), run)
    ]
    return figures, tuple(answers)


def _metrics(entry: Mapping[str, object]) -> dict[str, float]:
    """Finite values by `metric,filter`."""
    return {
        name: float(value)
        for name, value in entry.items()
        if "," in name and "_stderr," not in name and isinstance(value, int | float) and isfinite(value)
    }


def _figures(name: str, entry: Mapping[str, object], run: str) -> Iterator[Figure]:
    n = entry.get("sample_len")
    for judge, value in _metrics(entry).items():
        metric, _, filter_name = judge.partition(",")
        low, high = _interval(value, entry.get(f"{metric}_stderr,{filter_name}"), metric)
        yield Figure(
            run=run,
            suite=f"lm_eval:{name}",
            metric="score",
            judge=judge,
            value=value,
            n=n if isinstance(n, int) else 0,
            low=low,
            high=high,
        )


def _interval(value: float, error: object, metric: str) -> tuple[float, float]:
    """The 95 % interval from the standard error, or the whole range of a rate without one."""
    if not isinstance(error, int | float) or not isfinite(error):
        return min(0.0, value), max(1.0, value)
    low, high = value - _Z * error, value + _Z * error
    return (max(0.0, low), min(1.0, high)) if metric in _RATES else (low, high)


def _answers(name: str, judge: str, samples: Sequence[Mapping[str, object]], run: str) -> Iterator[TaskAnswer]:
    metric, _, filter_name = judge.partition(",")
    for sample in samples:
        row, value = sample.get("doc_id"), sample.get(metric)
        if (
            sample.get("filter") == filter_name
            and isinstance(row, int)
            and isinstance(value, int | float)
            and isfinite(value)
        ):
            yield TaskAnswer(
                run=run,
                suite=f"lm_eval:{name}",
                metric="score",
                row=row,
                answer=_response(sample.get("filtered_resps")),
                reference=str(sample.get("target")),
                value=float(value),
            )


def _response(responses: object) -> str:
    """Return the answer, or the number of the most likely choice, from 0."""
    if not isinstance(responses, list) or not responses:
        return ""
    each = cast(list[object], responses)
    likelihoods = [likelihood for likelihood in map(_likelihood, each) if likelihood is not None]
    if len(likelihoods) == len(each) > 1:
        return str(likelihoods.index(max(likelihoods)))
    return str(each[0])


def _likelihood(response: object) -> float | None:
    """Return the log-likelihood from a pair of it and whether the answer is the greedy one."""
    match response:
        case [float(likelihood), bool()]:
            return likelihood
        case _:
            return None
