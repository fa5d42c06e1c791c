"""How long a whole `securetune demo` takes in an empty folder, by phases.

Target: under 4 minutes on 2 cores, once everything is installed. Times of the job are the server's own: when the demo
has ended, its service is started again on the same state to query the job's events; that is not counted.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from core.schemas.events import StageFinished, StatusChanged
from research.bench.figures import Figures, benchmark
from securetune import SecureTune
from securetune.local import running

_LINES = {"securetune is running at": "start_service", "Dataset ": "upload", "Job ": "order"}


def main(
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; the demo's own default without.")] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows to use; the demo's own default without.")] = None,
    suite: Annotated[str, typer.Option(help="Suite of attacks.")] = "standard",
) -> None:
    """Seconds of a demo."""
    options = ["--suite", suite, *(["--steps", str(steps)] if steps else []), *(["--rows", str(rows)] if rows else [])]
    with benchmark("demo") as figures, tempfile.TemporaryDirectory(prefix="securetune-bench-") as folder:
        out = Path(folder, "demo")
        phases = _run(out, options)
        job_id = json.loads((out / "result.json").read_text())["job_id"]
        stages, claimed, job_seconds = _job(out / "state", job_id)
        figures["seconds"] = phases.pop("whole")
        job_wall = phases.pop("job_and_results")
        figures["phases"] = phases | {
            "job": round(job_seconds, 2),
            "results_and_stop": round(job_wall - job_seconds, 2),
        }
        figures["job"] = {"until_claimed": round(claimed, 2), "stages": stages}
        figures["target_seconds"] = 240


def _run(out: Path, options: list[str]) -> dict[str, float]:
    """Run the demo; seconds of its phases, which the lines that it prints separate."""
    command = [sys.executable, "-m", "securetune.cli.main", "demo", "--out", str(out), *options]
    env = dict(os.environ) | {"DATABASE_URL": "", "REDIS_URL": "", "PYTHONUNBUFFERED": "1"}
    phases: dict[str, float] = {}
    started = last = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            typer.echo(line.rstrip())
            phase = next((name for words, name in _LINES.items() if line.startswith(words)), None)
            if phase and phase not in phases:
                now = time.monotonic()
                phases[phase] = round(now - last, 2)
                last = now
    if demo.returncode:
        raise typer.Exit(demo.returncode)
    ended = time.monotonic()
    return phases | {"job_and_results": ended - last, "whole": round(ended - started, 2)}


def _job(state: Path, job_id: str) -> tuple[Figures, float, float]:
    """Seconds of each stage, seconds until a worker took the job, seconds of the whole job."""
    env = {"DATABASE_URL": "", "REDIS_URL": ""}
    with running(state, env=env) as address, SecureTune(address.address, address.api_key) as client:
        job, events = client.job(job_id), list(client.events(job_id))
    assert job.finished_at is not None
    stages = {
        f"{event.event.stage} {event.event.run or ''}".strip(): round(event.event.seconds, 2)
        for event in events
        if isinstance(event.event, StageFinished)
    }
    claimed = next(event.created_at for event in events if isinstance(event.event, StatusChanged))
    return (
        dict(stages),
        (claimed - job.created_at).total_seconds(),
        (job.finished_at - job.created_at).total_seconds(),
    )


if __name__ == "__main__":
    typer.run(main)
