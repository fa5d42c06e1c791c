"""What benchmarks share: taking turns and times, figures with count and spread, one line of JSON with the machine.

Not here: what is measured.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypedDict, TypeVar

Found = TypeVar("Found")
Arguments = ParamSpec("Arguments")


class Spread(TypedDict):
    """Several measurements of one figure."""

    n: int
    min: float
    median: float
    max: float


Figures = dict[str, object]


def spread(values: Sequence[float], digits: int = 3) -> Spread:
    """Count, least, median and most of at least one value."""
    return {
        "n": len(values),
        "min": round(min(values), digits),
        "median": round(statistics.median(values), digits),
        "max": round(max(values), digits),
    }


def spreads(runs: Sequence[Mapping[str, float]]) -> Figures:
    """The spread of each figure that every run has."""
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def ratios(values: Sequence[float], others: Sequence[float]) -> Spread:
    """The spread of the ratio of two measurements of the same round."""
    return spread([value / other for value, other in zip(values, others, strict=True)])


def take_turns(ways: Mapping[str, Callable[[], Found]], rounds: int) -> dict[str, list[Found]]:
    """Call every way once in each round, and begin each round with the next way."""
    names = list(ways)
    found: dict[str, list[Found]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(ways[name]())
    return found


def timed(
    work: Callable[Arguments, Found], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> tuple[Found, float, float]:
    """The result of a call, its wall seconds and its processor seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work(*args, **kwargs)
    return found, time.perf_counter() - wall, time.process_time() - cpu


def ignore(*_: object) -> None:
    """Discard progress."""


@contextmanager
def benchmark(name: str) -> Generator[Figures]:
    """Take figures; they are printed when the block has ended without an error."""
    figures: Figures = {}
    before, started = os.getloadavg()[0], time.monotonic()
    yield figures
    machine = {
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": round(before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    whole = {"benchmark": name} | figures | {"took_seconds": round(time.monotonic() - started, 1), "machine": machine}
    print(json.dumps(whole), flush=True)
