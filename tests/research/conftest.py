"""The shipped model, loaded once for all tests of experiments. Not here: worlds (tests/research/experiments)."""

import pytest
import torch

from core.catalog import TESTBED
from core.lm.load import BaseModel, load


@pytest.fixture(scope="session")
def base() -> BaseModel:
    """The shipped testbed model; tests do not change it."""
    return load(TESTBED, torch.device("cpu"))
