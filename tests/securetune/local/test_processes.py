"""securetune.local.processes: starting, stopping and cleaning up child processes.

Children inherit a pipe, so that the end of the last one can be observed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from typing_extensions import override

from core.errors import Unavailable
from securetune.local.processes import Command, Program, describe_exit, end_leftovers, living, spawn, stop_together


class Shell(Program):
    """A shell script as a program. Its processes inherit the pipe."""

    def __init__(self, script: str, log: Path, pipe: int | None = None) -> None:
        super().__init__("Script", log)
        self._script = script
        self._pipe = pipe

    @override
    def command(self) -> Command:
        return Command(["sh", "-c", self._script], keep_open=() if self._pipe is None else (self._pipe,))


class NeverReady(Shell):
    ready_within = 0.05

    @override
    def ready(self) -> bool:
        return False


class Traps(Shell):
    """Ready once the script has set its traps."""

    stop_signals = ((signal.SIGTERM, 0.1), (signal.SIGKILL, 10.0))

    @override
    def ready(self) -> bool:
        return "trapped" in self._written()


@contextmanager
def pipe() -> Generator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        for end in (reader, writer):
            try:
                os.close(end)
            except OSError:  # the test has already closed it
                continue


def test_sigkill_reaches_the_whole_group_when_sigterm_is_ignored(tmp_path: Path) -> None:
    with pipe() as (reader, writer):
        program = Traps("trap '' TERM; sleep 1000 & echo trapped; wait", tmp_path / "log", writer)
        program.launch()
        program.await_ready()
        os.close(writer)
        assert stop_together([program]) == []
        assert program.poll() == -signal.SIGKILL
        assert os.read(reader, 1) == b""  # the grandchild has ended as well


def test_leftovers_in_the_group_of_a_dead_program_are_ended(tmp_path: Path) -> None:
    with pipe() as (reader, writer):
        program = Shell("sleep 1000 & exit 3", tmp_path / "log", writer)
        program.launch()
        os.close(writer)
        while program.poll() is None:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert program.poll() == 3
        assert os.read(reader, 1) == b""


def test_a_hurried_stop_does_not_wait_for_the_grace_period(tmp_path: Path) -> None:
    program = Traps("trap '' TERM; echo trapped; while :; do sleep 0.1; done", tmp_path / "log")
    program.stop_signals = ((signal.SIGTERM, 1000.0), (signal.SIGKILL, 10.0))
    program.launch()
    program.await_ready()
    assert stop_together([program], hurried=lambda: True) == []
    assert program.poll() == -signal.SIGKILL


PARENT = """
import sys, time
from pathlib import Path
from securetune.local.processes import Command, spawn
spawn(Command(["sleep", "1000"], keep_open=(int(sys.argv[1]),)), Path(sys.argv[2]))
print("spawned", flush=True)
time.sleep(1000)
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with pipe() as (reader, writer):
        arguments = [sys.executable, "-c", PARENT, str(writer), str(tmp_path / "log")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, pass_fds=(writer,)) as parent:
            os.close(writer)
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"spawned\n"
            parent.kill()
        assert os.read(reader, 1) == b""


def test_the_error_of_a_program_that_ends_while_starting_has_the_reason(tmp_path: Path) -> None:
    program = NeverReady("echo the reason; exit 7", tmp_path / "log")
    program.ready_within = 60
    program.launch()
    with pytest.raises(Unavailable, match=r"exit status 7.*the reason.*log") as failed:
        program.await_ready()
    assert failed.value.code == "start_failed"


def test_a_program_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    program = NeverReady("exec sleep 1000", tmp_path / "log")
    program.launch()
    with pytest.raises(Unavailable, match="not ready after"):
        program.await_ready()
    assert program.poll() == -signal.SIGTERM
    assert program.pid is None


def test_only_output_since_the_last_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("from an earlier run\n")
    program = Shell("echo from this run", tmp_path / "log")
    program.launch()
    while program.poll() is None:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert "from this run" in program.log_tail()
    assert "earlier" not in program.log_tail()


def test_the_error_for_a_missing_program_names_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such-program") as failed:
        spawn(Command([tmp_path / "no-such-program"]), tmp_path / "log")
    assert failed.value.code == "cannot_start"


def test_leftovers_are_killed_after_the_grace_period(tmp_path: Path) -> None:
    process = spawn(Command(["sleep", "1000"], cwd=tmp_path), tmp_path / "log")

    def find() -> list[psutil.Process]:
        return living(lambda other: other.name() == "sleep" and other.cwd() == str(tmp_path.resolve()))

    assert [found.pid for found in find()] == [process.pid]
    end_leftovers(find, time.sleep, grace=0.05)
    assert find() == []  # dead, although it is still a zombie
    assert process.wait() == -signal.SIGKILL


def test_exit_statuses_and_signals_are_described() -> None:
    assert describe_exit(-9) == "signal SIGKILL"
    assert describe_exit(1) == "exit status 1"
