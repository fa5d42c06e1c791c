"""The shipped model, a small copy of the shipped world, and experiments in this process. Not here: any experiment."""

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from research.experiments import domains, extraction, poisoning, pool
from testbed import DATA_DIR, MODEL_DIR

_ROWS = 600
"""Rows of each tuning set: encoding all 9,000 takes longer than the rest of a short experiment."""


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shipped world, with the first rows of each tuning set only."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "model").symlink_to(MODEL_DIR)
    (folder / "data").mkdir()
    for path in DATA_DIR.glob("*.jsonl"):
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)[:_ROWS]
        (folder / "data" / path.name).write_text("".join(rows), encoding="utf-8")
    return folder


@pytest.fixture
def short_experiments(monkeypatch: pytest.MonkeyPatch, small_world: Path) -> None:
    """Run experiments on the small world, in a thread. test_evidence.py runs them in processes, which start slowly."""

    def find_world(_seed: int) -> Path:
        return small_world

    def executor(*, max_workers: int, mp_context: object, **options: Any) -> Executor:
        assert max_workers
        assert mp_context
        return ThreadPoolExecutor(1, **options)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", executor)
    for experiment in (domains, extraction, poisoning):
        monkeypatch.setattr(experiment, "world_folder", find_world)
