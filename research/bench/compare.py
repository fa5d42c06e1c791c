"""Compares two checkouts side by side: the figures that users see, old and new in turn, in one run.

Each checkout needs its own `.venv`. Figures of the service come from jobs over HTTP, so the checkouts may differ in
everything but the API. A ratio is new to old within one round: above 1, the new checkout is slower.
Not here: targets, and programs that measure one checkout (the other files of this folder).
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from research.bench.figures import benchmark, ratios, spread, timed

_PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "import_api": ("--runs 1", ("cpu_seconds", "median")),
    "training": ("--rounds 1 --steps 20", ("ml_lr", "cpu_milliseconds", "median")),
    "generation": ("--rounds 1 --sizes 64", ("without_system_prompt", "engine", "cpu_seconds", "median")),
}
"""Figures of a program in each checkout: its options, and the path of the figure in its last line."""
_STAGES = {"screening": ("screening",), "analysis": ("robustness",), "evaluation": ("before", "after")}
"""Figures of a job: the stages whose seconds are added up."""
_FIGURES = (*_PROGRAMS, "upload", "first_step", *_STAGES)
_UPLOAD_BYTES = 16 * 2**20
_STEPS = 20
_SETTLE_SECONDS = 20.0
"""A service loads its next training process after a job; that must not slow down the other service's job."""


def main(
    old: Annotated[Path, typer.Argument(help="Checkout to compare with.")],
    new: Annotated[Path, typer.Argument(help="Checkout that must not be slower.")],
    figures: Annotated[str, typer.Option(help="Figures, separated by commas.")] = ",".join(_FIGURES),
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each figure and checkout.")] = 3,
) -> None:
    """Print each figure of both checkouts and their ratio, with n and spread."""
    wanted = figures.split(",")
    checkouts = {"old": old.resolve(), "new": new.resolve()}
    found: dict[str, dict[str, list[float]]] = {name: {side: [] for side in checkouts} for name in wanted}
    with benchmark("compare") as report, ExitStack() as stack:
        with_service = any(name not in _PROGRAMS for name in wanted)
        services = {side: stack.enter_context(_running(path)) for side, path in checkouts.items() if with_service}
        for number in range(rounds):
            for side in ("old", "new") if number % 2 == 0 else ("new", "old"):
                values = {name: _run_program(checkouts[side], name) for name in wanted if name in _PROGRAMS}
                if with_service:
                    time.sleep(_SETTLE_SECONDS)
                    values |= _measure_service(services[side], checkouts[side], number)
                for name in wanted:
                    found[name][side].append(values[name])
        for name, sides in found.items():
            new_to_old = ratios(sides["new"], sides["old"])
            report[name] = {side: spread(each) for side, each in sides.items()} | {"new_to_old": new_to_old}


@contextmanager
def _running(checkout: Path) -> Generator[httpx2.Client]:
    """The service of a checkout, with a state of its own, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="securetune-compare-") as state:
        command = [checkout / ".venv/bin/securetune", "up", "--json", "--port", "0", "--state", state]
        env = os.environ | {"DATABASE_URL": "", "REDIS_URL": ""}
        with subprocess.Popen(command, cwd=checkout, env=env, stdout=subprocess.PIPE) as service:
            try:
                address = json.loads(service.stdout.readline()) if service.stdout else {}
                headers = {"Authorization": f"Bearer {Path(address['api_key_file']).read_text().strip()}"}
                checked = {"response": [httpx2.Response.raise_for_status]}
                with httpx2.Client(
                    base_url=address["address"], headers=headers, timeout=300, event_hooks=checked
                ) as client:
                    yield client
            finally:
                service.terminate()


def _measure_service(client: httpx2.Client, checkout: Path, seed: int) -> dict[str, float]:
    """Seconds of an upload, and of a job whose seed prevents the reuse of earlier results."""
    rows = (checkout / "testbed/data/instructions.jsonl").read_bytes()
    large = rows * (_UPLOAD_BYTES // len(rows)) + b"\n" * (seed + 1)  # other bytes in every round
    found = {"upload": timed(_upload, client, large)[1]}
    order = {
        "base_model": "testbed",
        "dataset": _upload(client, rows),
        "strategy": {"kind": "ml_lr", "analysis": {"seed": seed}},
        "training": {"steps": _STEPS},
        "security": {"seed": seed, "max_prompts": 24 + seed},
    }
    job = client.post("/jobs", json=order).json()
    while job["status"] in ("queued", "running"):
        time.sleep(0.5)
        job = client.get(f"/jobs/{job['id']}").json()
    if job["status"] != "succeeded":
        raise RuntimeError(f"The job ended as {job['status']}: {job['error']}")
    events = client.get(f"/jobs/{job['id']}/events", params={"limit": 100}).json()["data"]
    kinds = [(each["event"]["type"], each) for each in events]
    seconds = {each["event"]["stage"]: each["event"]["seconds"] for kind, each in kinds if kind == "stage_finished"}
    first = datetime.fromisoformat(next(each["created_at"] for kind, each in kinds if kind == "metrics"))
    until_step = (first - datetime.fromisoformat(job["created_at"])).total_seconds()
    measuring = sum(seconds.get(stage, 0.0) for stage in ("before", "noise", "robustness"))
    found["first_step"] = until_step - measuring
    return found | {name: sum(seconds[stage] for stage in stages) for name, stages in _STAGES.items()}


def _upload(client: httpx2.Client, rows: bytes) -> str:
    return str(client.post("/datasets", files={"file": ("rows.jsonl", rows)}).json()["id"])


def _run_program(checkout: Path, name: str) -> float:
    options, path = _PROGRAMS[name]
    package = "research.bench" if (checkout / "research").is_dir() else "bench"  # its name in version 0.1.0
    command = [checkout / ".venv/bin/python", "-m", f"{package}.{name}", *options.split()]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    value: Any = json.loads(done.stdout.splitlines()[-1])
    for part in path:
        value = value[part]
    return float(value)


if __name__ == "__main__":
    typer.run(main)
