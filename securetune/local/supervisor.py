"""Keeps programs running: restarts those that die, with a growing delay, and gives up after repeated early deaths.

Not here: which programs run (securetune.local.servers, securetune.local.services), and how they are stopped
(securetune.local.processes.stop_together).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import Unavailable
from securetune.local.processes import Program, describe_exit
from securetune.local.signals import Signals

ShowLine = Callable[[str], None]
"""Shows one line of text to the user."""


@dataclass(frozen=True)
class RestartPolicy:
    """When a program is restarted, and when the supervisor gives up."""

    early_seconds: float = 10.0
    """A death is early if the program ran for less than these seconds."""
    max_early_deaths: int = 5
    """Number of consecutive early deaths at which the supervisor gives up."""
    first_delay: float = 0.25
    """Seconds before the first restart; doubled with each consecutive early death."""
    max_delay: float = 5.0
    """Longest delay in seconds."""

    def delay(self, deaths: int) -> float:
        """Return the seconds to wait after `deaths` consecutive early deaths."""
        return min(self.first_delay * 2 ** max(deaths - 1, 0), self.max_delay)


@dataclass
class _Watched:
    program: Program
    started: float
    early_deaths: int = 0
    restart_at: float | None = None


def supervise(
    programs: Sequence[Program], signals: Signals, show: ShowLine, policy: RestartPolicy = RestartPolicy()
) -> None:
    """Restart the running `programs` whenever they die; return when the user requests a stop.

    Raises:
        Unavailable: code `keeps_dying`; a program had too many consecutive early deaths.
    """
    watched = [_Watched(program, time.monotonic()) for program in programs]
    while not signals.stops:
        for each in watched:
            _check(each, signals, show, policy)
        due = [each.restart_at for each in watched if each.restart_at is not None]
        signals.wait(min(due) - time.monotonic() if due else None)


def _check(watched: _Watched, signals: Signals, show: ShowLine, policy: RestartPolicy) -> None:
    if watched.restart_at is None:
        if (status := watched.program.poll()) is not None:
            _record_death(watched, f"ended ({describe_exit(status)})", show, policy)
    elif time.monotonic() >= watched.restart_at:
        watched.started, watched.restart_at = time.monotonic(), None
        try:
            watched.program.launch(signals.pause)
        except Unavailable as error:
            _record_death(watched, f"cannot be started: {error.message}", show, policy)


def _record_death(watched: _Watched, what: str, show: ShowLine, policy: RestartPolicy) -> None:
    now = time.monotonic()
    watched.early_deaths = watched.early_deaths + 1 if now - watched.started < policy.early_seconds else 1
    program, deaths = watched.program, watched.early_deaths
    if deaths >= policy.max_early_deaths:
        raise Unavailable(
            f"{program.title} {what}, {deaths} times in a row. Giving up. {program.log_tail()}", code="keeps_dying"
        )
    delay = policy.delay(deaths)
    watched.restart_at = now + delay
    show(f"{program.title} {what}. Restarting it in {delay:.2g} s. Its log is {program.log}.")
