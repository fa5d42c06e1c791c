"""Runs `securetune up` as a child process, for the demo, the benchmarks and the end-to-end tests.

Not here: what it starts (securetune.local.up).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.errors import Unavailable
from securetune.local.address import Address
from securetune.local.processes import Command, spawn


@contextmanager
def running(state: Path, port: int = 0, env: Mapping[str, str] | None = None) -> Generator[Address]:
    """Run a whole service while the block runs. The messages of the supervisor go to `state/logs/up.log`.

    Port 0 chooses a free one. `env` overrides the current environment; an empty value counts as unset. The service also
    ends when the calling thread ends, for whatever reason.

    Raises:
        Unavailable: code `start_failed`; the message contains the output of the supervisor.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = state / "logs" / "up.log"
    log.parent.mkdir(exist_ok=True)
    log_start = log.stat().st_size if log.exists() else 0
    arguments = ["up", "--json", "--port", str(port), "--state", str(state)]
    command = Command([sys.executable, "-m", "securetune.cli.main", *arguments], env=dict(os.environ) | dict(env or {}))
    with spawn(command, log, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101
        try:
            line = process.stdout.readline()
            if not line:  # it ended before it was ready
                process.wait()
                output = log.read_bytes()[log_start:].decode(errors="replace").strip()
                raise Unavailable(f"securetune up did not start: {output}", code="start_failed")
            yield Address.model_validate_json(line)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
