"""Fixtures: a small model in a folder."""

import shutil
from pathlib import Path

import pytest

from core.lm.load import BaseModel
from tests.core.helpers import tiny


@pytest.fixture(scope="session")
def template(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with the testbed's tokenizer; no test may change it."""
    folder = tmp_path_factory.mktemp("model") / "small"
    tiny("llama").save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(template, tmp_path / "small")
