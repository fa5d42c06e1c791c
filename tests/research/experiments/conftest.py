"""Short experiments in this process. Not here: the small world they run on (tests/research/conftest.py)."""

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from research.experiments import domains, extraction, poisoning, pool


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
