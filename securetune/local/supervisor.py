"""Keeps programs running: starts again what has died, with a growing delay, and gives up on what dies every time.

Not here: which programs (securetune.local.services), and how they are stopped
(securetune.local.processes.stop_together).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import Unavailable
from securetune.local.processes import Program, describe_exit
from securetune.local.signals import Signals

Say = Callable[[str], None]
"""Tells the user one line."""


@dataclass(frozen=True)
class Patience:
    """When to start again, and when to stop trying."""

    quick: float = 10.0
    """A program that lives shorter than these seconds has died at once."""
    tries: int = 5
    """So many deaths at once in a row are too many."""
    first_delay: float = 0.25
    """Seconds until the first new start; doubled with each death at once."""
    longest_delay: float = 5.0

    def delay(self, deaths: int) -> float:
        """Seconds to wait after so many deaths at once in a row."""
        return min(self.first_delay * 2 ** max(deaths - 1, 0), self.longest_delay)


@dataclass
class _Watched:
    program: Program
    started: float
    deaths: int = 0
    again_at: float | None = None


def supervise(programs: Sequence[Program], signals: Signals, say: Say, patience: Patience = Patience()) -> None:
    """Return when the user asks us to end; until then, start again whatever dies. The programs run already.

    Raises:
        Unavailable: code `keeps_dying`, when one of them dies at once too often.
    """
    watched = [_Watched(program, time.monotonic()) for program in programs]
    while not signals.stops:
        for one in watched:
            _look_after(one, signals, say, patience)
        waiting = [one.again_at for one in watched if one.again_at is not None]
        signals.wait(min(waiting) - time.monotonic() if waiting else None)


def _look_after(one: _Watched, signals: Signals, say: Say, patience: Patience) -> None:
    now = time.monotonic()
    if one.again_at is not None:
        if now >= one.again_at:
            _start_again(one, signals, say, patience)
        return
    if (status := one.program.poll()) is not None:
        _note_death(one, f"ended ({describe_exit(status)})", say, patience)


def _start_again(one: _Watched, signals: Signals, say: Say, patience: Patience) -> None:
    one.started, one.again_at = time.monotonic(), None
    try:
        one.program.launch(signals.pause)
    except Unavailable as error:
        _note_death(one, f"cannot be started: {error.message}", say, patience)


def _note_death(one: _Watched, what: str, say: Say, patience: Patience) -> None:
    now = time.monotonic()
    one.deaths = one.deaths + 1 if now - one.started < patience.quick else 1
    title = one.program.title
    if one.deaths >= patience.tries:
        raise Unavailable(
            f"{title} {what}, {one.deaths} times in a row: giving up. {one.program.log_tail()}", code="keeps_dying"
        )
    one.again_at = now + patience.delay(one.deaths)
    say(f"{title} {what}; starting it again in {patience.delay(one.deaths):.2g} s. Its log is {one.program.log}.")
