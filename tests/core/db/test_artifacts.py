"""Files of a job: listed by name, found only once the job has succeeded, and withheld by the gate if they are gated."""

import pytest

from core.db import artifacts, gate, jobs, keys
from core.db.session import Session, Sessions, transaction
from core.errors import Conflict, NotFound, Withheld
from core.schemas.gate import GateDecision, GateOutcome
from core.schemas.job import JobSpec
from core.schemas.results import StoredFile


def file(name: str, *, gated: bool) -> StoredFile:
    return StoredFile(
        name=name, key=f"jobs/a/1/{name}", sha256="0" * 64, bytes=3, media_type="application/json", gated=gated
    )


FILES = [file("report.json", gated=False), file("merged/model.gguf", gated=True)]


def finish(session: Session, spec: JobSpec, outcome: GateOutcome) -> str:
    job_id = jobs.add(session, spec).id
    claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
    assert claim is not None
    artifacts.put(session, job_id, FILES)
    decision = GateDecision(run="ml_lr", outcome=outcome, reasons=(), checks=(), policy_version=0)
    jobs.finish(session, claim, "succeeded", gate=decision)
    session.flush()
    return job_id


def test_files_are_listed_by_name_and_found(sessions: Sessions, spec: JobSpec) -> None:
    with transaction(sessions) as session:
        job_id = finish(session, spec, "released")
        assert [row.name for row in artifacts.of_job(session, job_id)] == ["merged/model.gguf", "report.json"]
        assert artifacts.released(session, job_id, "report.json").sha256 == "0" * 64
        assert artifacts.released(session, job_id, "merged/model.gguf").gated
        with pytest.raises(NotFound) as caught:
            artifacts.released(session, job_id, "weights.bin")
    assert caught.value.code == "artifact_not_found"


def test_a_gated_file_is_withheld_until_somebody_overrides_the_gate(sessions: Sessions, spec: JobSpec) -> None:
    with transaction(sessions) as session:
        job_id = finish(session, spec, "quarantined")
        assert artifacts.released(session, job_id, "report.json").gated is False
        with pytest.raises(Withheld) as caught:
            artifacts.released(session, job_id, "merged/model.gguf")
        assert caught.value.code == "adapter_quarantined"
        caller = keys.check(session, keys.create(session, "officer", rights=["override"]))
        gate.override(session, job_id, reason="Reviewed by the red team.", by=caller)
        assert artifacts.released(session, job_id, "merged/model.gguf").key == "jobs/a/1/merged/model.gguf"


def test_a_job_that_has_not_succeeded_has_no_files(sessions: Sessions, spec: JobSpec) -> None:
    with transaction(sessions) as session:
        job_id = jobs.add(session, spec).id
        assert artifacts.of_job(session, job_id) == []
        with pytest.raises(Conflict) as caught:
            artifacts.released(session, job_id, "report.json")
    assert caught.value.code == "job_not_finished"
