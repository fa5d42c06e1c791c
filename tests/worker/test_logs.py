"""Bounded logs of processes, and one line a record for the worker's own."""

import logging
import os
import time
from pathlib import Path

import pytest

from worker import logs
from worker.logs import AttemptLog, job_logger


def test_the_file_begins_with_what_came_before_it(tmp_path: Path) -> None:
    log = AttemptLog()
    log.feed(b"one\n")
    log.open(tmp_path / "deep" / "a.log")
    log.feed(b"two\n")
    assert (tmp_path / "deep" / "a.log").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "deep" / "a.log").stat().st_mode & 0o777 == 0o600


def test_the_file_stops_growing_and_says_so_while_the_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = AttemptLog(limit=100)
    log.open(path)
    for number in range(1000):
        log.feed(b"line %d\n" % number)
    text = path.read_text()
    assert text.startswith("line 0\n")
    assert text.endswith("the rest is missing\n")
    assert len(text) < 200
    assert log.tail(2) == ["line 998", "line 999"]


def test_the_end_is_clean_text() -> None:
    log = AttemptLog()
    log.feed(b"a\x00b \xff\n\n   \nlast  \n\n")
    assert log.tail(5) == ["a\ufffdb \ufffd", "last"]
    assert AttemptLog().tail(3) == []


def test_a_full_disk_costs_the_log_only() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("Linux only")
    log = AttemptLog()
    log.open(Path("/dev/full"))
    log.feed(b"line\n")
    assert log.tail(1) == ["line"]


def test_old_logs_are_removed(tmp_path: Path) -> None:
    for name, days in (("old.log", 31), ("new.log", 1), ("old.txt", 31)):
        (tmp_path / name).touch()
        then = time.time() - days * 24 * 3600
        os.utime(tmp_path / name, (then, then))
    logs.clean(tmp_path)
    logs.clean(tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.log", "old.txt"]


def test_every_record_names_its_job(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        job_logger("job_a", 2).info("claimed by %s", "me")
    assert caplog.messages == ["job_a#2: claimed by me"]


def test_a_record_is_one_line() -> None:
    record = logging.LogRecord("worker", logging.INFO, "f", 1, "one\ntwo", None, None)
    assert logs.OneLine("%(message)s").format(record) == "one\\ntwo"
