"""securetune.local.supervisor: what is started again, when it is given up, and that a signal ends the watch."""

import os
import signal
from pathlib import Path

import pytest
from typing_extensions import override

from core.errors import Unavailable
from securetune.local.processes import Command, Program, stop_together
from securetune.local.signals import Signals, StopRequested
from securetune.local.supervisor import Patience, supervise

HASTY = Patience(quick=60, tries=3, first_delay=0.01, longest_delay=0.02)


class Script(Program):
    """Runs the next of its scripts at each start, then the last one over and over."""

    def __init__(self, log: Path, *scripts: str) -> None:
        super().__init__("Script", log)
        self._scripts = list(scripts)
        self.starts = 0

    @override
    def command(self) -> Command:
        script = self._scripts[min(self.starts, len(self._scripts) - 1)]
        self.starts += 1
        return Command(["sh", "-c", script])


def test_what_dies_is_started_again_until_the_user_ends_it(tmp_path: Path) -> None:
    """The second start tells us, by a signal such as Ctrl-C sends, that it runs."""
    script = Script(tmp_path / "log", "exit 1", f"kill -INT {os.getpid()}; exec sleep 1000")
    said: list[str] = []
    with Signals() as signals:
        script.launch()
        supervise([script], signals, said.append, HASTY)
        assert script.starts == 2
        assert script.pid is not None
        assert stop_together([script], signals.wait) == []
    assert len(said) == 1
    assert "Script ended (exit status 1); starting it again in 0.01 s" in said[0]


def test_what_dies_at_once_every_time_is_given_up(tmp_path: Path) -> None:
    script = Script(tmp_path / "log", "echo no such thing; exit 4")
    with Signals() as signals:
        script.launch()
        with pytest.raises(Unavailable, match=r"exit status 4.*3 times in a row: giving up.*no such thing") as failed:
            supervise([script], signals, [].append, HASTY)
    assert failed.value.code == "keeps_dying"
    assert script.starts == 3


def test_a_start_that_fails_counts_as_a_death(tmp_path: Path) -> None:
    class Missing(Script):
        @override
        def command(self) -> Command:
            return super().command() if self.starts == 0 else Command([tmp_path / "missing"])

    program = Missing(tmp_path / "log", "exit 1")
    with Signals() as signals:
        program.launch()
        with pytest.raises(Unavailable, match="cannot be started"):
            supervise([program], signals, [].append, HASTY)


def test_delays_grow_up_to_a_limit() -> None:
    patience = Patience(first_delay=0.25, longest_delay=5)
    assert [patience.delay(deaths) for deaths in range(1, 8)] == [0.25, 0.5, 1, 2, 4, 5, 5]


def test_a_signal_breaks_off_a_wait_and_the_second_hurries() -> None:
    with Signals() as signals:
        hurried = signals.hurry()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequested):
            signals.pause(1000)
        assert not hurried()
        os.kill(os.getpid(), signal.SIGTERM)
        assert hurried()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("number", "noted"), [(signal.SIGHUP, 0), (signal.SIGINT, 1), (signal.SIGTERM, 1)])
def test_what_nohup_ignores_stays_ignored_and_what_a_shell_ignores_for_background_jobs_does_not(
    number: signal.Signals, noted: int
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(number)
            assert signals.stops == noted
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
