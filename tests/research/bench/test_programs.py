"""Every benchmark runs, on a tiny setting, and prints one line of JSON last. How long anything takes is no test."""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path

import pytest
import torch

from research.bench.service import Service, own_service
from tests.research.bench.programs import run

ROOT = Path(__file__).parents[3]
PROGRAMS = {
    "import_api": ["--runs", "1"],
    "upload": ["--small", "1", "--large", "2", "--runs", "1"],
    "analysis": ["--repeats=1", "--probes=8", "--rows=1", "--steps=1", "--layers=2", "--every=7"],
    "training": ["--rounds=1", "--steps=1", "--rows=16", "--batch-size=4"],
    "evaluation": ["--suite=quick", "--runs=1", "--steps=1", "--max-prompts=4"],
    "poison": ["--seeds=0", "--rows=400", "--planted=9", "--attacks=word_answer", "--timed=50"],
    "base_refusal": ["--worlds=0", "--rows=20"],
    "report": ["--answers=200", "--layers=2", "--runs=1"],
    "screening": ["time", "--rows", "200"],
    "large": [
        *("--device=cpu", "--layers=2", "--hidden=64", "--prompts=4", "--tokens=2"),
        *("--length=16", "--batch-size=2", "--steps=1", "--rounds=1"),
    ],
    "end_weights": ["--seeds=1", "--rows=8", "--steps=1", "--max-prompts=4"],
    "noise": ["--max-prompts=4", "--rows=4"],
    "precision": ["--rounds=1", "--batch-size=2", "--length=64", "--prompts=1", "--tokens=2"],
    "penalty": ["--rounds=1", "--steps=1", "--batch-size=2", "--length=64", "--prompts=8"],
    "first_step": ["--jobs", "0"],
    "compare": [str(ROOT), str(ROOT), "--figures", "import_api", "--rounds", "1"],
    "cancel": ["--jobs", "1"],
}

SMALLER: dict[str, dict[str, object]] = {
    "analysis": {"_KINDS": {"groups": ("type",)}},
    "end_weights": {"_HELD_OUT": 8, "_FAMILIES": ("direct",)},
}
"""Constants of programs that no option makes small."""


def spreads(figures: object) -> Iterator[dict[str, float]]:
    """Every figure with a count, however deep."""
    if isinstance(figures, dict):
        if "median" in figures:
            yield figures
        for value in figures.values():
            yield from spreads(value)


pytestmark = pytest.mark.slow


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives torch back the number of threads that a program changes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One service for all programs that start one: that takes longer than what they measure here."""
    with own_service({"SECURETUNE_HEARTBEAT_SECONDS": "0.1"}) as service:
        yield service


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("name", "options"), PROGRAMS.items())
def test_it_runs_and_says_json_last(
    name: str, options: list[str], small_world: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = import_module(f"research.bench.{name}")
    for constant, value in SMALLER.get(name, {}).items():
        monkeypatch.setattr(program, constant, value)
    if hasattr(program, "own_service"):
        service: Service = request.getfixturevalue("service")

        def same_service(_env: Mapping[str, str] | None = None) -> AbstractContextManager[Service]:
            return nullcontext(service)

        monkeypatch.setattr(program, "own_service", same_service)
    if hasattr(program, "DATA_DIR"):
        monkeypatch.setattr(program, "DATA_DIR", small_world / "data")
    done = run(program.app if name == "screening" else program.main, *options)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["benchmark"] == name
    assert {"cpus", "load_before", "load_after"} <= figures["machine"].keys()
    assert len(figures) > 3
    for found in spreads(figures):
        assert found["n"] >= 1
        assert found["min"] <= found["median"] <= found["max"]


def test_every_program_is_tried_and_described() -> None:
    described = (ROOT / "research" / "bench" / "README.md").read_text()
    programs = {path.stem for path in (ROOT / "research" / "bench").glob("*.py") if "__main__" in path.read_text()}
    own_form = {"generation", "judges", "templates"}  # what they print is tested elsewhere
    needs_models = {"engines"}  # real ones of a server's list
    assert programs == PROGRAMS.keys() | own_form | needs_models
    for name in programs:
        assert f"`research.bench.{name}`" in described
