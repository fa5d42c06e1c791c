"""Several labs side by side, each in a process of its own with one thread: small models gain little from more.

Covers: starting them, handing out work, giving up at the first error or at Ctrl-C. Not here: the work
(research.experiments.lab).
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from core.lm.modules import Module
from core.schemas.analysis import AnalysisSpec
from research.experiments.lab import Lab, Watch
from research.experiments.spec import Analysed, Curve, Point, Run, Settings

Say = Callable[[str], None]
Order = TypeVar("Order")
Answered = TypeVar("Answered")

_lab: Lab | None = None


class Pool:
    """Labs of one world."""

    def __init__(self, executor: ProcessPoolExecutor, say: Say) -> None:
        self._executor, self._say = executor, say

    def modules(self) -> tuple[Module, ...]:
        """The modules of the base model."""
        return self.call(_modules)

    def base(self, watch: Watch | None = None) -> Point:
        """The base model's figures."""
        return self.call(Lab.base_point, watch)

    def curves(self, orders: Sequence[Run], watches: Sequence[Watch] | None = None) -> list[Curve]:
        """Train every run; in the given order. Runs that differ only in their name are trained once.

        `watches` measure something beside the rest, one for each run.
        """
        wanted = list(zip(orders, watches or [None] * len(orders), strict=True))
        same = [
            next(number for number, (first, seen) in enumerate(wanted) if _alike(first, order) and seen == watch)
            for order, watch in wanted
        ]
        once = sorted(set(same))
        found = dict(zip(once, self.each(_train, [wanted[number] for number in once], _describe_curve), strict=True))
        return [found[of].model_copy(update={"run": order.run}) for of, order in zip(same, orders, strict=True)]

    def analyses(
        self, orders: Sequence[tuple[AnalysisSpec, int, float, float]], rows: Sequence[Path] | None = None
    ) -> list[Analysed]:
        """Analyse with (analysis, seed, rate, seconds of a step); `rows` are files in place of the tuning set."""
        files = rows or [None] * len(orders)
        return self.each(_analyse, list(zip(orders, files, strict=True)), _describe_analysis)

    def call(self, work: Callable[..., Answered], *args: object) -> Answered:
        """Call a function of a module with a lab and these arguments."""
        return self._executor.submit(_work, work, *args).result()

    def each(
        self,
        work: Callable[[Lab, Order], Answered],
        orders: Sequence[Order],
        describe: Callable[[Order, Answered], str],
    ) -> list[Answered]:
        """Call a function of a module with a lab and each of the orders; results are in the given order."""
        futures = {self._executor.submit(_work, work, order): number for number, order in enumerate(orders)}
        found: dict[int, Answered] = {}
        for future in as_completed(futures):
            number = futures[future]
            found[number] = future.result()
            self._say(f"{len(found)} of {len(orders)}: {describe(orders[number], found[number])}")
        return [found[number] for number in range(len(orders))]


@contextmanager
def pool(folder: Path, world_seed: int, settings: Settings, say: Say, *, data: Path | None = None) -> Iterator[Pool]:
    """As many labs as this machine has processors; `data` is a file in place of the world's own tuning set."""
    # Threads that spin while they wait would starve the other labs; it is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    executor = ProcessPoolExecutor(
        max_workers=len(os.sched_getaffinity(0)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open,
        initargs=(folder, world_seed, settings, data),
    )
    try:
        yield Pool(executor, say)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _open(folder: Path, world_seed: int, settings: Settings, data: Path | None) -> None:
    global _lab  # noqa: PLW0603 - one lab a process, made once
    _lab = Lab(folder, world_seed, settings, data)


def _work(work: Callable[..., Answered], *args: object) -> Answered:
    return work(_lab, *args)


def _modules(lab: Lab) -> tuple[Module, ...]:
    return lab.modules


def _train(lab: Lab, order: tuple[Run, Watch | None]) -> Curve:
    return lab.run(*order)


def _analyse(lab: Lab, order: tuple[tuple[AnalysisSpec, int, float, float], Path | None]) -> Analysed:
    analysis, rows = order
    return lab.analysed(*analysis, rows)


def _alike(one: Run, other: Run) -> bool:
    named = one.plan.model_copy(update={"strategy": other.plan.strategy})
    return one.model_copy(update={"run": other.run, "plan": named}) == other


def _describe_curve(_order: object, curve: Curve) -> str:
    end = curve.points[-1]
    watched = "".join(f", {name} {value:.3g}" for name, value in end.watched.items())
    return (
        f"{curve.run}, seed {curve.seed}, rate {curve.rate:g}: attack success {end.attack_success:.0f} %, "
        f"task {end.task:.0f} %, loss {end.loss:.3f}{watched}"
    )


def _describe_analysis(_order: object, found: Analysed) -> str:
    return f"analysis, seed {found.seed}: {len(found.result.robust)} of {len(found.result.modules)} modules are robust"
