"""securetune.local.supervisor and securetune.local.signals: restarts, delays, giving up, and stop signals."""

import os
import signal
from pathlib import Path

import pytest
from typing_extensions import override

from core.errors import Unavailable
from securetune.local.processes import Command, Program, stop_together
from securetune.local.signals import Signals, StopRequested
from securetune.local.supervisor import RestartPolicy, supervise

FAST = RestartPolicy(early_seconds=60, max_early_deaths=3, first_delay=0.01, max_delay=0.02)


class Script(Program):
    """Runs the next script at each start; the last one is repeated."""

    def __init__(self, log: Path, *scripts: str) -> None:
        super().__init__("Script", log)
        self._scripts = list(scripts)
        self.starts = 0

    @override
    def command(self) -> Command:
        script = self._scripts[min(self.starts, len(self._scripts) - 1)]
        self.starts += 1
        return Command(["sh", "-c", script])


def test_a_dead_program_is_restarted_until_the_user_requests_a_stop(tmp_path: Path) -> None:
    """The restarted script requests the stop itself, with the signal that Ctrl-C sends."""
    script = Script(tmp_path / "log", "exit 1", f"kill -INT {os.getpid()}; exec sleep 1000")
    shown: list[str] = []
    with Signals() as signals:
        script.launch()
        supervise([script], signals, shown.append, FAST)
        assert script.starts == 2
        assert script.pid is not None
        assert stop_together([script], signals.wait) == []
    assert len(shown) == 1
    assert "Script ended (exit status 1). Restarting it in 0.01 s" in shown[0]


def test_repeated_early_deaths_end_the_supervision(tmp_path: Path) -> None:
    script = Script(tmp_path / "log", "echo no such thing; exit 4")
    with Signals() as signals:
        script.launch()
        with pytest.raises(Unavailable, match=r"exit status 4.*3 times in a row. Giving up.*no such thing") as failed:
            supervise([script], signals, [].append, FAST)
    assert failed.value.code == "keeps_dying"
    assert script.starts == 3


def test_a_failed_start_counts_as_a_death(tmp_path: Path) -> None:
    class Missing(Script):
        @override
        def command(self) -> Command:
            return super().command() if self.starts == 0 else Command([tmp_path / "missing"])

    program = Missing(tmp_path / "log", "exit 1")
    with Signals() as signals:
        program.launch()
        with pytest.raises(Unavailable, match="cannot be started"):
            supervise([program], signals, [].append, FAST)


def test_delays_grow_up_to_a_limit() -> None:
    policy = RestartPolicy(first_delay=0.25, max_delay=5)
    assert [policy.delay(deaths) for deaths in range(1, 8)] == [0.25, 0.5, 1, 2, 4, 5, 5]


def test_a_signal_interrupts_a_wait_and_a_second_one_hurries() -> None:
    with Signals() as signals:
        hurried = signals.watch_repeated_stop()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequested):
            signals.pause(1000)
        assert not hurried()
        os.kill(os.getpid(), signal.SIGTERM)
        assert hurried()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("number", "stops"), [(signal.SIGHUP, 0), (signal.SIGINT, 1), (signal.SIGTERM, 1)])
def test_an_ignored_sighup_stays_ignored_and_other_ignored_signals_stop(number: signal.Signals, stops: int) -> None:
    """nohup ignores SIGHUP; a shell ignores SIGINT for background jobs."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(number)
            assert signals.stops == stops
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
