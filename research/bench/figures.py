"""What every benchmark says: figures with count and spread, and the machine they were taken on, as one line of JSON.

Not here: measuring.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TypedDict


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


@contextmanager
def benchmark(name: str) -> Generator[Figures]:
    """Take figures; they are printed when the block has ended without an error."""
    figures: Figures = {}
    before, started = os.getloadavg()[0], time.monotonic()
    yield figures
    machine = {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    whole = {"benchmark": name} | figures | {"took_seconds": round(time.monotonic() - started, 1), "machine": machine}
    print(json.dumps(whole), flush=True)
