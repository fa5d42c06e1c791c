"""Sessions on a database of the test's own, and a job spec to start from."""

from collections.abc import Iterator

import pytest

from core.db.session import Sessions, dispose, transaction
from core.db.session import sessions as make_sessions
from core.schemas.job import JobSpec
from tests.core.db.helpers import add_dataset


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    factory = make_sessions(database_url, pool_size=10)
    yield factory
    dispose(factory)


@pytest.fixture
def spec(sessions: Sessions) -> JobSpec:
    """A job on a dataset that is there."""
    with transaction(sessions) as session:
        row, _ = add_dataset(session)
        return JobSpec(base_model="testbed", dataset=row.id)
