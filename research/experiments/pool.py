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
from research.experiments.spec import Analysed, Curve, NewAttackRun, Point, Run, Settings

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
        return self._executor.submit(_modules).result()

    def base(self, watch: Watch | None = None) -> Point:
        """The base model's figures."""
        return self._executor.submit(_base, watch).result()

    def curves(self, orders: Sequence[Run], watches: Sequence[Watch] | None = None) -> list[Curve]:
        """Train every arm; in the order asked. Arms that are the same but for their name are trained once.

        `watches` measure something beside the rest, one for each order.
        """
        asked = list(zip(orders, watches or [None] * len(orders), strict=True))
        same = [
            next(number for number, (first, seen) in enumerate(asked) if _alike(first, order) and seen == watch)
            for order, watch in asked
        ]
        once = sorted(set(same))
        found = dict(zip(once, self._each(_run, [asked[number] for number in once], _said_of_curve), strict=True))
        return [found[of].model_copy(update={"run": order.run}) for of, order in zip(same, orders, strict=True)]

    def analyses(
        self, orders: Sequence[tuple[AnalysisSpec, int, float, float]], rows: Sequence[Path] | None = None
    ) -> list[Analysed]:
        """Analyse with (analysis, seed, rate, seconds of a step); `rows` are files in place of the tuning set."""
        files = rows or [None] * len(orders)
        return self._each(_analysed, list(zip(orders, files, strict=True)), _said_of_analysis)

    def base_under_new_attacks(self) -> dict[str, float]:
        """Attack success of the unseen attacks on the base model, by family."""
        return self._executor.submit(_base_under_new_attacks).result()

    def new_attacks(self, orders: Sequence[Run]) -> list[NewAttackRun]:
        """Train every arm and put the unseen attacks to it."""
        return self._each(_new_attacks, orders, _said_of_attacks)

    def _each(
        self, work: Callable[[Order], Answered], orders: Sequence[Order], words: Callable[[Answered], str]
    ) -> list[Answered]:
        futures = {self._executor.submit(work, order): number for number, order in enumerate(orders)}
        found: dict[int, Answered] = {}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            self._say(f"{len(found)} of {len(orders)}: {words(found[futures[future]])}")
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


def _alike(one: Run, other: Run) -> bool:
    named = one.plan.model_copy(update={"strategy": other.plan.strategy})
    return one.model_copy(update={"run": other.run, "plan": named}) == other


def _open(folder: Path, world_seed: int, settings: Settings, data: Path | None) -> None:
    global _lab  # noqa: PLW0603 - one lab a process, made once
    _lab = Lab(folder, world_seed, settings, data)


def _here() -> Lab:
    if _lab is None:
        raise RuntimeError("this process has no lab")
    return _lab


def _modules() -> tuple[Module, ...]:
    return _here().modules


def _base(watch: Watch | None) -> Point:
    return _here().point(_here().base.model, 0, watch)


def _run(order: tuple[Run, Watch | None]) -> Curve:
    return _here().run(*order)


def _analysed(order: tuple[tuple[AnalysisSpec, int, float, float], Path | None]) -> Analysed:
    asked, rows = order
    return _here().analysed(*asked, rows)


def _base_under_new_attacks() -> dict[str, float]:
    return _here().base_under_new_attacks()


def _new_attacks(order: Run) -> NewAttackRun:
    return _here().new_attacks(order)


def _said_of_attacks(run: NewAttackRun) -> str:
    found = ", ".join(f"{family} {value:.0f} %" for family, value in run.attack_success.items())
    return f"{run.run}, seed {run.seed}: {found}"


def _said_of_curve(curve: Curve) -> str:
    end = curve.points[-1]
    watched = "".join(f", {name} {value:.3g}" for name, value in end.watched.items())
    return (
        f"{curve.run}, seed {curve.seed}, rate {curve.rate:g}: attack success {end.attack_success:.0f} %, "
        f"task {end.task:.0f} %, loss {end.loss:.3f}{watched}"
    )


def _said_of_analysis(found: Analysed) -> str:
    return f"analysis, seed {found.seed}: {len(found.result.robust)} of {len(found.result.modules)} modules are robust"
