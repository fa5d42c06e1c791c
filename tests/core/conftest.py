"""Fixtures of the science tests: one thread, and the testbed in memory, which no test may leave changed.

Torch is not imported at the top, because the tests of the database and of errors run without it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from core.lm.load import BaseModel
    from core.lm.modules import Module

settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models are faster on one thread, and results are then identical bit for bit."""
    torch = sys.modules.get("torch")
    if torch is None:  # no test that was collected needs it
        yield
        return
    torch.set_num_threads(1)
    with threadpool_limits(1):  # numpy's and scipy's own
        yield


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    """No test connects to the public model hub."""
    constants = sys.modules.get("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        if constants:
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="session")
def base(_one_thread: None) -> "Iterator[BaseModel]":
    """The testbed, loaded once. At the end of the session its weights must be unchanged, bit for bit."""
    from core.catalog import TESTBED  # noqa: PLC0415
    from core.lm.load import choose_device, load  # noqa: PLC0415
    from tests.core.helpers import fingerprint  # noqa: PLC0415

    loaded = load(TESTBED, choose_device("cpu"))
    before = fingerprint(loaded.model)
    yield loaded
    assert fingerprint(loaded.model) == before, "a test left the base model's weights changed"


@pytest.fixture(scope="session")
def modules(base: "BaseModel") -> "tuple[Module, ...]":
    """The testbed's modules."""
    from core.lm.modules import find_modules  # noqa: PLC0415

    return find_modules(base.model)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder with the public data sets beside the repository; tests that need it are skipped without it."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public data sets are not beside the repository")
    return folder
