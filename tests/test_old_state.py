"""What version 0.1.0 left can be used by this one: keys, jobs, files, reports, signatures, policies, waiting jobs."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql

from api.main import create_app
from core.db import jobs, migrate
from core.db.session import transaction
from core.orders import assign
from core.schemas.job import Assignment
from core.schemas.replies import ArtifactReply, EventReply, JobReply, JobSummary, Page
from core.schemas.results import Report
from core.schemas.robustness import RobustnessResult
from core.schemas.screening import ScreeningResult
from core.schemas.signing import TrustedKeys
from core.signing import verify
from tests.api.conftest import settings_for
from tests.old_state import MANIFEST, OldState, unpack

JOBS: dict[str, Any] = MANIFEST["jobs"]
SUCCEEDED = [name for name, job in JOBS.items() if job["status"] == "succeeded"]
TUNED = [name for name in SUCCEEDED if JOBS[name]["kind"] == "tune"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldState:
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def http(
    old: OldState, make_database: Callable[[], AbstractContextManager[str]], redis_url: str
) -> Iterator[TestClient]:
    """The API of this version over the old state, on a migrated copy of the old database."""
    with make_database() as url, psycopg.connect(url, autocommit=True) as admin:
        name = sql.Identifier(urlsplit(url).path[1:] + "_old")
        admin.execute(sql.SQL("create database {}").format(name))
        try:
            old_url = urlsplit(url)._replace(path=urlsplit(url).path + "_old").geturl()
            migrate.upgrade(old_url, MANIFEST["revision"])
            old.fill(old_url)
            migrate.upgrade(old_url)
            settings = settings_for(old_url, redis_url, old.state).model_copy(
                update={"models": old.root / "models.toml"}
            )
            with TestClient(create_app(settings)) as client:
                client.headers["authorization"] = f"Bearer {MANIFEST['keys']['override']['key']}"
                yield client
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(name))


def path(name: str, rest: str = "") -> str:
    return f"/jobs/{JOBS[name]['id']}{rest}"


@pytest.mark.parametrize("name", MANIFEST["keys"])
def test_keys_open_what_they_opened(http: TestClient, name: str) -> None:
    key = MANIFEST["keys"][name]
    reply = http.get("/policy", headers={"authorization": f"Bearer {key['key']}"})
    assert reply.status_code == (200 if key["valid"] else 401)
    if key["valid"]:
        version = reply.json()["version"]
        assert (reply.json()["project"], version) == (key["project"], MANIFEST["policies"][key["project"]]["current"])


def test_jobs_are_listed_newest_first(http: TestClient) -> None:
    found = Page[JobSummary].model_validate(http.get("/jobs?limit=100").json()).data
    assert [job.id for job in found] == MANIFEST["jobs_newest_first"]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_shown_with_its_figures_decision_and_events(http: TestClient, old: OldState, name: str) -> None:
    expected, before = JOBS[name], old.reply(f"{name}/job")
    job = JobReply.model_validate(http.get(path(name)).json())
    assert (job.status, job.project, job.attempt, len(job.figures)) == (
        expected["status"],
        expected["project"],
        expected["attempt"],
        expected["figures"],
    )
    assert job.created_at.isoformat().replace("+00:00", "Z") == before["created_at"]
    assert [figure.run for figure in job.figures] == [figure["arm"] for figure in before["figures"]]
    assert [figure.value for figure in job.figures] == [figure["value"] for figure in before["figures"]]
    if before["gate"] is None:
        assert job.gate is None
    else:
        assert job.gate is not None
        assert (job.gate.outcome, job.gate.available) == (before["gate"]["outcome"], before["gate"]["available"])
        assert [each.reason for each in job.gate.overrides] == [each["reason"] for each in before["gate"]["overrides"]]
    assert job.policy is not None
    assert job.policy.version == expected["policy_version"]
    assert (job.error.message if job.error else None) == (expected["error"]["message"] if expected["error"] else None)
    found = Page[EventReply].model_validate(http.get(path(name, "/events?limit=100")).json())
    rest = Page[EventReply].model_validate(http.get(path(name, f"/events?limit=100&after={found.data[-1].id}")).json())
    assert len(found.data) + len(rest.data) == expected["events"]


@pytest.mark.parametrize("name", SUCCEEDED)
def test_files_are_listed_and_downloaded_unless_the_gate_withholds_them(http: TestClient, name: str) -> None:
    withheld = name == "withheld"
    files = Page[ArtifactReply].model_validate(http.get(path(name, "/artifacts")).json()).data
    assert {file.name: file.sha256 for file in files} == JOBS[name]["files"]
    for file in files:
        trained = file.name.startswith("adapter")
        assert (file.url is None) == (trained and withheld), file.name
        address = path(name, f"/artifacts/{file.name}")
        reply = http.get(address)
        if trained and withheld:
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "gate_undecided")
            assert http.head(address).status_code == 403
        else:
            assert (reply.status_code, sha256(reply.content).hexdigest()) == (200, file.sha256)


@pytest.mark.parametrize("name", TUNED)
def test_reports_and_maps_can_be_read(http: TestClient, name: str) -> None:
    written = http.get(path(name, "/report")).json()
    report = Report.model_validate(written)
    assert (written["version"], report.version, report.job_id) == (1, 2, JOBS[name]["id"])
    assert [figure.run for figure in report.figures] == [figure["arm"] for figure in written["figures"]]
    assert [run.run for run in report.training] == [run["arm"] for run in written["training"]]
    added = [run["safety_rows"] for run in written["training"] if run["safety_rows"]]
    assert [effect.counts["rows"] for run in report.training for effect in run.safeguards] == added
    assert all(file.gated for run in report.training for file in run.adapter)
    maps = http.get(path(name, "/robustness")).json()
    for old_map in maps:
        found = RobustnessResult.model_validate(old_map)
        assert (found.update_scale, found.robust) == (old_map["stretch"], tuple(old_map["robust"]))
    assert report.robustness == tuple(RobustnessResult.model_validate(each) for each in maps)


@pytest.mark.parametrize("name", SUCCEEDED)
def test_screenings_can_be_read(http: TestClient, name: str) -> None:
    written = http.get(path(name, "/screening")).json()
    found = ScreeningResult.model_validate(written)
    before = {each["check"]: each["flagged"] for each in written["checks"] if each["check"] != "pull"}
    assert {each.check.replace("base_refusal", "refused"): each.flagged for each in found.checks} == before
    assert len(found.findings) == len([each for each in written["findings"] if each["check"] != "pull"])
    assert found.dropped == tuple(written["dropped"])


@pytest.mark.parametrize("name", TUNED)
def test_signatures_still_hold(http: TestClient, name: str) -> None:
    trusted = TrustedKeys.model_validate(http.get("/signing-keys").json())
    assert [key.keyid for key in trusted.keys] == MANIFEST["signing_keyids"]
    found = verify(http.get(path(name, "/report?format=signed")).content, trusted)
    assert found.code == "verified"
    assert {file.name: file.sha256 for file in found.files} | {"signed_report.json": ""} == JOBS[name]["files"] | {
        "signed_report.json": ""
    }
    assert found.summary is not None
    gate = found.summary.gate[0]
    job = http.get(path(name)).json()
    assert (gate.run, gate.outcome) == (Report.model_validate(found.report).gate[0].run, job["gate"]["outcome"])


@pytest.mark.parametrize("name", [name for name, job in JOBS.items() if job["status"] == "queued"])
def test_waiting_jobs_can_be_assigned(http: TestClient, name: str) -> None:
    parts = http.app.state.parts  # pyrefly: ignore[missing-attribute]
    with transaction(parts.sessions) as session:
        assert assign_again(session, parts, JOBS[name]["id"]) == JOBS[name]["strategies"]


def assign_again(session: Any, parts: Any, job_id: str) -> dict[str, str]:
    """Labels and kinds of the strategies in the assignment of a job that waits."""
    claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
    assert claim is not None
    assignment, model = assign(session, claim, parts.catalog)
    assert isinstance(assignment, Assignment)
    assert model is not None
    assert (parts.store.path(assignment.dataset.key)).is_file()
    return {run.label: run.kind for run in assignment.spec.runs}


def test_policies_can_be_read(http: TestClient, old: OldState) -> None:
    for project, key in (("team-a", "override"), ("default", "first")):
        headers = {"authorization": f"Bearer {MANIFEST['keys'][key]['key']}"}
        versions = http.get("/policy/versions", headers=headers).json()["data"]
        assert [each["version"] for each in versions] == MANIFEST["policies"][project]["versions"]
    before = old.reply("policy-team-a")["policy"]
    now = http.get("/policy").json()["policy"]
    assert now["max_undecided_share"] == before["most_undecided"]
    assert json.dumps(now["task"]) == json.dumps(before["task"])
