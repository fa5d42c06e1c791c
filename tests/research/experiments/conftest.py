"""The testbed's model, read once. Not here: experiments, which read it in processes of their own."""

import pytest
import torch

from core.catalog import TESTBED
from core.lm.load import BaseModel, load


@pytest.fixture(scope="session")
def base() -> BaseModel:
    """The testbed, as it ships; no test changes it."""
    return load(TESTBED, torch.device("cpu"))
