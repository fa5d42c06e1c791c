"""Ordering a check of a base model, and which check is found afterwards."""

from pathlib import Path

import pytest

from core.catalog import TESTBED, Catalog
from core.db import artifacts, jobs
from core.db.session import Sessions, transaction
from core.errors import InvalidModel, NotFound
from core.orders import assign, check_model, latest_check
from core.schemas.job import CheckAssignment, CheckRequest, CheckSpec, read_order
from core.schemas.keys import Caller
from core.schemas.modelcheck import ModelCheck
from core.storage import ArtifactStore
from tests.core.checks import CHECK
from tests.core.orders.conftest import LISTED


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def finish(sessions: Sessions, store: ArtifactStore, job_id: str, check: ModelCheck) -> None:
    """What a worker does with an ordered check."""
    with transaction(sessions) as session:
        claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
        assert claim is not None
        key, data = f"jobs/{job_id}/attempts/1/model-check.json", check.model_dump_json().encode()
        file = store.put(key, data, name="model-check.json", media_type="application/json", gated=False)
        artifacts.put(session, job_id, [file])
        jobs.finish(session, claim, "succeeded")


def test_a_check_is_a_job_with_an_assignment(sessions: Sessions, caller: Caller) -> None:
    sent: list[str] = []
    job = check_model(sessions, LISTED, caller, "testbed", CheckRequest(lora_rank=8), send=sent.append)
    assert (sent, job.project, job.spec["kind"]) == ([job.id], "team-a", "check")
    assert read_order(job.spec) == CheckSpec(base_model="testbed", lora_rank=8)
    with transaction(sessions) as session:
        claim = jobs.claim(session, job.id, owner="test", lease_seconds=60)
        assert claim is not None
        assignment, model = assign(session, claim, LISTED)
    assert isinstance(assignment, CheckAssignment)
    assert (assignment.spec.lora_rank, model) == (8, TESTBED)


def test_only_listed_models_are_checked(sessions: Sessions, caller: Caller, store: ArtifactStore) -> None:
    with pytest.raises(InvalidModel, match="testbed"):
        check_model(sessions, LISTED, caller, "gpt-4", CheckRequest(), send=lambda _job: None)
    with transaction(sessions) as session, pytest.raises(InvalidModel):
        latest_check(session, store, LISTED, "gpt-4")


def test_the_newest_check_is_found_until_the_model_changes(
    sessions: Sessions, caller: Caller, store: ArtifactStore
) -> None:
    def order() -> str:
        return check_model(sessions, LISTED, caller, "testbed", CheckRequest(), send=lambda _job: None).id

    def latest(listed: Catalog = LISTED) -> tuple[str, ModelCheck]:
        with transaction(sessions) as session:
            job, check = latest_check(session, store, listed, "testbed")
            return job.id, check

    first, second, _waiting = order(), order(), order()
    with pytest.raises(NotFound, match="has not been checked yet") as caught:
        latest()
    assert caught.value.code == "model_not_checked"
    finish(sessions, store, second, CHECK)
    assert latest() == (second, CHECK)
    newer = CHECK.model_copy(update={"training_tokens_per_second": 1.0})
    finish(sessions, store, first, newer)
    assert latest() == (first, newer)

    faster = TESTBED.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(NotFound, match="has changed") as caught:
        latest(Catalog(models={"testbed": faster}))
    assert caught.value.code == "model_not_checked"
    finish(sessions, store, order(), CHECK.model_copy(update={"state_sha256": "0" * 64}))
    with pytest.raises(NotFound, match="has changed"):
        latest()
