"""Overriding the gate: the right to do so, and the record of it."""

import pytest

from core.db import gate, jobs, records
from core.db.session import Sessions, transaction
from core.errors import Forbidden
from core.orders import check_right, override
from core.schemas.gate import GateDecision
from core.schemas.job import JobSpec
from core.schemas.keys import Caller


def test_an_override_needs_the_right_and_is_recorded(
    sessions: Sessions, spec: JobSpec, caller: Caller, officer: Caller
) -> None:
    with transaction(sessions) as session:
        job_id = jobs.add(session, spec).id
        claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
        assert claim is not None
        decision = GateDecision(run="ml_lr", outcome="quarantined", reasons=(), checks=(), policy_version=0)
        jobs.finish(session, claim, "succeeded", gate=decision)
    with (
        transaction(sessions) as session,
        pytest.raises(Forbidden, match="--project team-a --right override") as caught,
    ):
        override(session, caller, job_id, reason="It looks fine to me.")
    assert caught.value.code == "missing_right"
    with transaction(sessions) as session:
        assert gate.overrides(session, job_id) == {}
        override(session, officer, job_id, reason="Reviewed by the red team.")
    with transaction(sessions) as session:
        (record,) = gate.overrides(session, job_id)[job_id]
        (event,) = records.events(session, job_id, after=0, limit=10)[0]
        assert gate.standing(session, jobs.get(session, job_id)).released
    assert (record.key_name, record.reason, record.outcome) == ("officer", "Reviewed by the red team.", "quarantined")
    assert (event.type, event.data["key_id"]) == ("gate_overridden", officer.key_id)


def test_rights_are_checked_one_by_one(officer: Caller) -> None:
    check_right(officer, "override")
    with pytest.raises(Forbidden, match="'policy'"):
        check_right(officer, "policy")
