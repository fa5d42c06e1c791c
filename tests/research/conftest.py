"""The shipped model, loaded once for all tests of experiments, and a small copy of the shipped world. Not here: worlds
that are built (tests/testbed)."""

from pathlib import Path

import pytest
import torch

from core.catalog import TESTBED
from core.lm.load import BaseModel, load
from testbed import DATA_DIR, MODEL_DIR

_ROWS = 600
"""Rows of each tuning set: reading all 9,000 takes longer than the rest of a short experiment."""


@pytest.fixture(scope="session")
def base() -> BaseModel:
    """The shipped testbed model; tests do not change it."""
    return load(TESTBED, torch.device("cpu"))


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
