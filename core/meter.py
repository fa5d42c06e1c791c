"""Adds up the work of one stage while it is done: calls, amount and seconds of each kind.

Not here: what is counted for which kind (core.schemas.speeds), when a stage begins and ends (core.pipeline.stages).
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from core.schemas.speeds import StageSpeed, Work, WorkMethod
from core.schemas.state import Stage


class _Kind(NamedTuple):
    work: Work
    precision: str | None
    method: WorkMethod | None


@dataclass
class _Sum:
    calls: int = 0
    amount: float = 0.0
    seconds: float = 0.0


@dataclass
class Meter:
    """The work since the last `take`."""

    _sums: dict[_Kind, _Sum] = field(default_factory=dict)

    def add(
        self,
        work: Work,
        *,
        calls: int,
        amount: float,
        seconds: float,
        precision: str | None = None,
        method: WorkMethod | None = None,
    ) -> None:
        """Add work that has been done; nothing if there was none."""
        if calls < 1 or amount <= 0:
            return
        found = self._sums.setdefault(_Kind(work, precision, method), _Sum())
        found.calls += calls
        found.amount += amount
        found.seconds += seconds

    @contextmanager
    def measure(
        self,
        work: Work,
        *,
        calls: int,
        amount: float,
        precision: str | None = None,
        method: WorkMethod | None = None,
    ) -> Generator[None]:
        """Add the work that the block does. Work that raises is not added. On a GPU, the block must wait for its
        results.
        """
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.add(work, calls=calls, amount=amount, seconds=seconds, precision=precision, method=method)

    @property
    def seconds(self) -> float:
        """Time that all work since the last `take` took, in seconds."""
        return sum(each.seconds for each in self._sums.values())

    def take(self, stage: Stage) -> tuple[StageSpeed, ...]:
        """The work since the last call, as that of `stage`."""
        found = tuple(
            StageSpeed(
                stage=stage,
                work=kind.work,
                calls=each.calls,
                amount=each.amount,
                seconds=each.seconds,
                precision=kind.precision,
                method=kind.method,
            )
            for kind, each in self._sums.items()
        )
        self._sums.clear()
        return found
