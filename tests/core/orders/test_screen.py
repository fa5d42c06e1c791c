"""Screening without training: which checks run, with and without a base model."""

import pytest

from core.catalog import TESTBED
from core.db import jobs
from core.db.session import Sessions, transaction
from core.errors import InvalidInput, InvalidModel, NotFound
from core.orders import assign, screen
from core.orders.screen import complete_screening
from core.schemas.job import JobSpec, ScreenAssignment
from core.schemas.keys import Caller
from core.schemas.policy import Policy
from core.schemas.screening import ScreeningPolicy, ScreenRequest
from tests.core.orders.conftest import LISTED

DATASET = "ds_" + "0" * 24


def test_with_a_base_model_its_checks_report_and_without_one_they_are_off() -> None:
    strict = Policy(screening=ScreeningPolicy.model_validate({"base_refusal": "drop", "secrets": "reject"}))
    with_model = complete_screening(DATASET, ScreenRequest(base_model="testbed"), Policy(), LISTED)
    assert (with_model.base_model, with_model.screening.actions["base_refusal"]) == ("testbed", "report")
    stricter = complete_screening(DATASET, ScreenRequest(base_model="testbed"), strict, LISTED)
    assert (stricter.screening.actions["base_refusal"], stricter.screening.actions["secrets"]) == ("drop", "reject")
    without = complete_screening(DATASET, ScreenRequest(), strict, LISTED)
    assert (without.screening.actions["base_refusal"], without.screening.actions["secrets"]) == ("off", "reject")


def test_what_the_request_says_goes_before_the_policy() -> None:
    own = ScreeningPolicy.model_validate({"harmful": "off"})
    order = complete_screening(DATASET, ScreenRequest(base_model="testbed", screening=own), Policy(), LISTED)
    assert order.screening == own


def test_a_check_that_needs_a_base_model_needs_one_named() -> None:
    own = ScreeningPolicy.model_validate({"base_refusal": "report"})
    with pytest.raises(InvalidInput, match="base_refusal") as caught:
        complete_screening(DATASET, ScreenRequest(screening=own), Policy(), LISTED)
    assert (caught.value.code, caught.value.param) == ("invalid_parameter", "base_model")
    with pytest.raises(InvalidModel):
        complete_screening(DATASET, ScreenRequest(base_model="gpt-4"), Policy(), LISTED)


def test_a_screening_is_a_job_with_an_assignment(sessions: Sessions, spec: JobSpec, caller: Caller) -> None:
    sent: list[str] = []
    job = screen(sessions, LISTED, caller, spec.dataset, ScreenRequest(base_model="testbed"), send=sent.append)
    assert (sent, job.project, job.spec["kind"]) == ([job.id], "team-a", "screen")
    with transaction(sessions) as session:
        claim = jobs.claim(session, job.id, owner="test", lease_seconds=60)
        assert claim is not None
        assignment, model = assign(session, claim, LISTED)
    assert isinstance(assignment, ScreenAssignment)
    assert (assignment.dataset.id, model) == (spec.dataset, TESTBED)
    with pytest.raises(NotFound):
        screen(sessions, LISTED, caller, DATASET[:-1] + "1", ScreenRequest(), send=sent.append)
    assert len(sent) == 1
