"""Runs `securetune up` as a child process, for the demo, the benchmarks and the end-to-end tests.

Not here: what it starts (securetune.local.up).
"""

import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.errors import Unavailable
from securetune.local.address import Address
from securetune.local.processes import Command, spawn


@contextmanager
def running(state: Path, env: Mapping[str, str] | None = None) -> Generator[Address]:
    """Run a whole service on a free port while the block runs. The supervisor's messages go to `state/logs/up.log`.

    `env` overrides the current environment; an empty value counts as unset. The service also ends when the calling
    thread ends, for whatever reason.

    Raises:
        Unavailable: code `start_failed`; the message contains the output of the supervisor.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = state / "logs" / "up.log"
    log.parent.mkdir(exist_ok=True)
    log_start = log.stat().st_size if log.exists() else 0
    argv = [sys.executable, "-m", "securetune.cli.main", "up", "--json", "--port", "0", "--state", str(state)]
    with spawn(Command(argv, env=os.environ | (env or {})), log, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101
        try:
            line = process.stdout.readline()
            if not line:  # it ended before it was ready
                process.wait()
                output = log.read_bytes()[log_start:].decode(errors="replace").strip()
                raise Unavailable(f"securetune up did not start: {output}", code="start_failed")
            yield Address.model_validate_json(line)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
