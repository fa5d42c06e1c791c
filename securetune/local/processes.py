"""Child processes: start one that ends with its parent, stop several together, find leftovers of an earlier run.

Covers: sessions, signals, log files, leftovers. Not here: which programs exist (securetune.local.servers,
securetune.local.services), and when one is restarted (securetune.local.supervisor).
"""

import ctypes
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

import psutil

from core.errors import Unavailable

Pause = Callable[[float], None]
"""Waits for up to this many seconds. May raise to interrupt the caller."""

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_HURRIED_GRACE = 0.5
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Account:
    """The operating system user that a program runs as, if it is not the current one."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """A program with its arguments, environment and working directory."""

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    account: Account | None = None
    keep_open: tuple[int, ...] = ()
    """File descriptors that the program inherits."""


def spawn(
    command: Command, log: Path, *, stdout: int | None = None, death_signal: Signals = signal.SIGTERM
) -> subprocess.Popen[bytes]:
    """Start a program in its own session; append its output to `log`, or send its standard output to `stdout`.

    The kernel sends it `death_signal` when the *thread* that called this ends, however that happens: call it from the
    main thread.

    Raises:
        Unavailable: code `cannot_start`; the program cannot be run.
    """
    account, parent = command.account, os.getpid()

    def set_death_signal() -> None:
        _LIBC.prctl(_SET_DEATH_SIGNAL, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

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
                # Runs after the change of user, which would clear the setting; one system call, no locks.
                preexec_fn=set_death_signal,  # noqa: PLW1509
            )
    except OSError as error:
        path = error.filename or command.argv[0]
        raise Unavailable(f"Cannot run {command.argv[0]}: {error.strerror} ({path}).", code="cannot_start") from error


class Program(ABC):
    """One child process that can be restarted after it has died."""

    stop_signals: Sequence[tuple[Signals, float]] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))
    """How to end the program: a signal, the seconds it gets after it, the next signal."""
    ready_within: float = 60.0
    """Seconds from start to `ready`, after which the start counts as failed."""

    def __init__(self, title: str, log: Path) -> None:
        self.title = title
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._group_ended = True

    @abstractmethod
    def command(self) -> Command:
        """Return the command. It is called at each start."""

    def prepare(self, pause: Pause) -> None:  # noqa: B027 - most programs need nothing
        """Prepare a start; called before each one."""

    def ready(self) -> bool:
        """Whether the program works, as far as a quick check can show."""
        return self.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id while the program runs, else None."""
        return self._process.pid if self._process is not None and self.poll() is None else None

    def launch(self, pause: Pause = time.sleep) -> None:
        """Start or restart the program without waiting until it is ready.

        Raises:
            Unavailable: the program cannot be started; the code says why.
        """
        if self.poll() is None:  # also ends what a dead predecessor has left in its process group
            raise RuntimeError(f"{self.title} is already running")
        self.prepare(pause)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process = spawn(self.command(), self.log, death_signal=self.stop_signals[0][0])
        self._group_ended = False

    def await_ready(self, pause: Pause = time.sleep) -> None:
        """Wait until the program is ready.

        Raises:
            Unavailable: code `start_failed`, or what `diagnose` returns; the program ended or took too long.
        """
        deadline = time.monotonic() + self.ready_within
        while not self.ready():
            if (status := self.poll()) is not None:
                raise self.diagnose(f"{self.title} ended during its start ({describe_exit(status)})")
            if time.monotonic() > deadline:
                stop_together([self], pause)
                raise self.diagnose(f"{self.title} was not ready after {self.ready_within:.0f} s")
            pause(0.01)

    def diagnose(self, what: str) -> Unavailable:
        """Return the error to raise after a failed start."""
        return Unavailable(f"{what}. {self.log_tail()}", code="start_failed")

    def log_tail(self) -> str:
        """Return the last four lines of output since the last start, and the path of the log."""
        text = self._written().strip().splitlines()[-4:]
        output = "Its last output: " + " | ".join(line.strip() for line in text) + ". " if text else ""
        return f"{output}Its log is {self.log}."

    def _written(self) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read(2**20).decode(errors="replace")

    def poll(self) -> int | None:
        """Return the exit status, None while the program runs, 0 if it was never started.

        The first call after its death also kills what is left in its process group. Later, another process group may
        have the same number.
        """
        if self._process is None:
            return 0
        status = self._process.poll()
        if status is not None and not self._group_ended:
            signal_group(self._process.pid, signal.SIGKILL)
            self._group_ended = True
        return status

    def signal(self, number: Signals) -> None:
        """Send a signal if the program runs; SIGKILL goes to its whole process group."""
        if self._process is None or self.poll() is not None:
            return
        if number == signal.SIGKILL:
            signal_group(self._process.pid, number)
        else:
            self._process.send_signal(number)


def describe_exit(status: int) -> str:
    """An exit status in words, such as `signal SIGKILL`."""
    return f"signal {Signals(-status).name}" if status < 0 else f"exit status {status}"


def signal_group(group: int, number: Signals) -> None:
    """Send a signal to a process group if it still has members."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def stop_together(
    programs: Sequence[Program], pause: Pause = time.sleep, hurried: Callable[[], bool] = lambda: False
) -> list[Program]:
    """Stop programs at the same time, each by its own `stop_signals`. Return those that did not end.

    Once `hurried` returns true, every wait is cut to half a second.
    """
    steps = {program: list(program.stop_signals) for program in programs}
    signalled = dict.fromkeys(programs, 0.0)
    grace = dict.fromkeys(programs, 0.0)
    alive: list[Program] = []
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
                alive.append(program)
                del steps[program]
        if steps:
            pause(0.02)
    return alive


def living(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Return running processes that match, except this one. Processes that may not be inspected do not match."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and matches(process):
                found.append(process)
    return found


def end_leftovers(find: Callable[[], Iterable[psutil.Process]], pause: Pause, *, grace: float) -> None:
    """Wait up to `grace` seconds until `find` returns nothing, then kill what it returns.

    Raises:
        Unavailable: code `leftover_process`; a process survives SIGKILL.
    """
    kill_at, give_up_at = time.monotonic() + grace, time.monotonic() + grace + 10
    while found := list(find()):
        now = time.monotonic()
        if now > give_up_at:
            pids = ", ".join(str(process.pid) for process in found)
            raise Unavailable(f"Processes of an earlier run cannot be ended: {pids}.", code="leftover_process")
        for process in found if now > kill_at else ():
            try_signal(process, signal.SIGKILL)
        pause(0.02)


def try_signal(process: psutil.Process, number: Signals) -> None:
    """Send a signal to a process if it still exists."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
