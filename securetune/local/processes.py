"""Child processes: start one that ends when we end, stop several together, find what an earlier run left behind.

Covers: sessions, signals, log files, leftovers. Not here: which programs there are (securetune.local.servers,
securetune.local.services) and when one is started again (securetune.local.supervisor).
"""

import ctypes
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

import psutil

from core.errors import Unavailable

Pause = Callable[[float], None]
"""Waits for so many seconds, or less. May raise to break off whatever is waiting."""

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_HURRIED_GRACE = 0.5
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Account:
    """The operating system's user that a program runs as, when that is not ours."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to run, and where."""

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    account: Account | None = None
    keep_open: tuple[int, ...] = ()
    """File descriptors that the program inherits."""


def spawn(
    command: Command, log: Path, *, stdout: int | None = None, death_signal: Signals = signal.SIGTERM
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to `log`, or what it prints sent to `stdout`.

    The kernel sends it `death_signal` when the *thread* that called this ends, however that happens: call it from the
    main thread.

    Raises:
        Unavailable: code `cannot_start`, when the program cannot be run.
    """
    account = command.account
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                cwd=command.cwd,
                env=command.env,
                pass_fds=command.keep_open,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                # Runs after the change of user, which would clear the setting. One system call, no Python locks.
                preexec_fn=_die_with_parent(death_signal),  # noqa: PLW1509
            )
    except OSError as error:
        what = error.filename or command.argv[0]
        raise Unavailable(f"Cannot run {command.argv[0]}: {error.strerror} ({what}).", code="cannot_start") from error


def _die_with_parent(death_signal: Signals) -> Callable[[], None]:
    parent = os.getpid()

    def ask_kernel() -> None:
        _LIBC.prctl(_SET_DEATH_SIGNAL, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask_kernel


class Program(ABC):
    """One child process that can be started again after it has died."""

    stop_signals: Sequence[tuple[Signals, float]] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))
    """How to end it: a signal, the seconds it then gets, the next signal."""
    ready_within: float = 60.0
    """Seconds from start to `ready`, before it counts as failed."""

    def __init__(self, title: str, log: Path) -> None:
        self.title = title
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._group_ended = True

    @abstractmethod
    def command(self) -> Command:
        """What to run. Asked anew at each start."""

    def prepare(self, pause: Pause) -> None:  # noqa: B027 - most programs need nothing
        """Whatever must be done before each start."""

    def ready(self) -> bool:
        """Whether it does its work, as far as can be seen at once."""
        return self.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None and self.poll() is None else None

    def launch(self, pause: Pause = time.sleep) -> None:
        """Start it, or start it again when it has ended, without waiting until it is ready.

        Raises:
            Unavailable: it cannot be started; the code says why.
        """
        if self._process is not None and self.poll() is None:
            raise RuntimeError(f"{self.title} runs already")
        self.prepare(pause)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process = spawn(self.command(), self.log, death_signal=self.stop_signals[0][0])
        self._group_ended = False

    def await_ready(self, pause: Pause = time.sleep) -> None:
        """Wait until it is ready.

        Raises:
            Unavailable: code `start_failed` (or what `diagnose` finds), when it ends or takes too long instead.
        """
        deadline = time.monotonic() + self.ready_within
        while not self.ready():
            if (status := self.poll()) is not None:
                raise self.diagnose(f"{self.title} ended while it was starting ({ending(status)})")
            if time.monotonic() > deadline:
                stop_together([self], pause)
                raise self.diagnose(f"{self.title} was not ready after {self.ready_within:.0f} s")
            pause(0.01)

    def diagnose(self, what: str) -> Unavailable:
        """The error to raise when a start has failed."""
        return Unavailable(f"{what}. {self.last_words()}", code="start_failed")

    def last_words(self, lines: int = 4) -> str:
        """The end of what it wrote since it was last started, and where the rest is."""
        text = self._written().strip().splitlines()[-lines:]
        said = "It wrote: " + " | ".join(line.strip() for line in text) + ". " if text else ""
        return f"{said}Its log is {self.log}."

    def _written(self) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read(2**20).decode(errors="replace")

    def poll(self) -> int | None:
        """Its exit status, or None while it runs. 0 when it was never started.

        Whoever notices that it has died also ends what it has left in its process group, at once: a little later the
        number may be somebody else's.
        """
        if self._process is None:
            return 0
        status = self._process.poll()
        if status is not None and not self._group_ended:
            signal_group(self._process.pid, signal.SIGKILL)
            self._group_ended = True
        return status

    def signal(self, number: Signals) -> None:
        """Signal it, while it runs; SIGKILL goes to its whole process group."""
        if self._process is None or self.poll() is not None:
            return
        if number == signal.SIGKILL:
            signal_group(self._process.pid, number)
        else:
            self._process.send_signal(number)


def ending(status: int) -> str:
    """An exit status in words."""
    return f"signal {Signals(-status).name}" if status < 0 else f"exit status {status}"


def signal_group(group: int, number: Signals) -> None:
    """Signal a process group, if there is anybody left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def stop_together(
    programs: Sequence[Program], pause: Pause = time.sleep, hurried: Callable[[], bool] = lambda: False
) -> list[Program]:
    """Stop programs at the same time, each by its own `stop_signals`. Returns those that would not end.

    Once `hurried` says so, every wait is cut to half a second.
    """
    steps = {program: list(program.stop_signals) for program in programs}
    signalled = dict.fromkeys(programs, 0.0)
    grace = dict.fromkeys(programs, 0.0)
    refused: list[Program] = []
    while steps:
        now = time.monotonic()
        for program in list(steps):
            allowed = min(grace[program], _HURRIED_GRACE) if hurried() else grace[program]
            if program.poll() is not None:
                del steps[program]
            elif now - signalled[program] < allowed:
                continue
            elif steps[program]:
                number, grace[program] = steps[program].pop(0)
                signalled[program] = now
                program.signal(number)
            else:
                refused.append(program)
                del steps[program]
        if steps:
            pause(0.02)
    return refused


def living(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Processes that match, but for this one and the dead. What we may not look at is not ours and does not match."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and matches(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_leftovers(find: Callable[[], Iterable[psutil.Process]], pause: Pause, *, grace: float) -> None:
    """Wait up to `grace` seconds until `find` finds nothing more, then kill what it finds.

    Raises:
        Unavailable: code `leftover_process`, when even that does not help.
    """
    kill_at, give_up_at = time.monotonic() + grace, time.monotonic() + grace + 10
    while found := list(find()):
        now = time.monotonic()
        if now > give_up_at:
            pids = ", ".join(str(process.pid) for process in found)
            raise Unavailable(f"Processes of an earlier run do not end: {pids}.", code="leftover_process")
        for process in found if now > kill_at else ():
            try_signal(process, signal.SIGKILL)
        pause(0.02)


def try_signal(process: psutil.Process, number: Signals) -> None:
    """Signal a process, if it is still there."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
