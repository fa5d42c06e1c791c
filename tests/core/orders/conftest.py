"""Sessions on an own database, a dataset, callers, and a list of sent job ids."""

from collections.abc import Iterator

import pytest

from core.catalog import TESTBED, Catalog
from core.db import keys
from core.db.session import Sessions, dispose, transaction
from core.db.session import sessions as make_sessions
from core.schemas.job import JobSpec
from core.schemas.keys import Caller
from tests.core.db.helpers import add_dataset

LISTED = Catalog(models={TESTBED.name: TESTBED})


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    factory = make_sessions(database_url)
    yield factory
    dispose(factory)


@pytest.fixture
def spec(sessions: Sessions) -> JobSpec:
    """An order for an uploaded dataset."""
    with transaction(sessions) as session:
        row, _ = add_dataset(session)
        return JobSpec(base_model=TESTBED.name, dataset=row.id)


@pytest.fixture
def caller(sessions: Sessions) -> Caller:
    """A caller without rights beyond ordinary use."""
    with transaction(sessions) as session:
        return keys.check(session, keys.create(session, "notebook", project="team-a"))


@pytest.fixture
def officer(sessions: Sessions) -> Caller:
    """A caller who may override the gate."""
    with transaction(sessions) as session:
        return keys.check(session, keys.create(session, "officer", rights=["override"]))
