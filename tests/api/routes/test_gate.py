"""What the gate withholds: by archive, by file, by range, by an older link; overrides, and who may do so."""

import psycopg
import pytest
from sqlalchemy import text

from core.db import gate
from core.db.session import transaction
from core.orders.assign import gather
from core.schemas.gate import GateOutcome
from core.schemas.job import JobSpec
from core.schemas.policy import PolicyRef
from tests.api.conftest import Service

FILES = {
    "adapter.tar": (bytes(range(256)) * 4, "application/x-tar"),
    "adapter/adapter_model.safetensors": (b"\0" * 64, "application/octet-stream"),
    "report.json": (b'{"version": 1}', "application/json"),
    "report.html": (b"<!doctype html>", "text/html; charset=utf-8"),
    "answers.jsonl": (b"{}\n", "application/jsonl"),
}
WHY = {"reason": "Red team looked at all answers: SEC-1234."}
TRAINED = ("adapter", "adapter/adapter_model.safetensors")


def ended(service: Service, tag: str, outcome: GateOutcome, weights: str | None = None) -> str:
    job_id = service.job(tag)
    service.end(job_id, "succeeded", FILES, outcome, weights=weights)
    return f"/jobs/{job_id}"


@pytest.mark.parametrize(("outcome", "code"), [("quarantined", "adapter_quarantined"), ("undecided", "gate_undecided")])
def test_what_is_withheld_answers_403_with_reasons_however_it_is_asked_for(
    service: Service, outcome: GateOutcome, code: str
) -> None:
    job = ended(service, f"withheld {outcome}", outcome)
    digests = {path: service.http.get(f"{job}/artifacts").json()["data"] for path in TRAINED}
    for path in TRAINED:
        asked: tuple[dict[str, str], ...] = (
            {},
            {"range": "bytes=0-3"},
            {"if-none-match": f'"{digests[path][0]["sha256"]}"'},
        )
        for headers in asked:
            reply = service.http.get(f"{job}/{path}", headers=headers)
            error = reply.json()["error"]
            assert (reply.status_code, error["code"], error["type"]) == (403, code, "permission_error")
            assert error["reasons"] == [
                {"code": "attack_success_too_high", "message": "Attack success of direct is 75 %."}
            ]
            assert "75 %" in error["message"]
        assert service.http.head(f"{job}/{path}").status_code == 403
    for path in ("report", "report?format=html", "answers"):
        assert service.http.get(f"{job}/{path}").status_code == 200, "figures are for everybody"


def test_the_job_says_what_was_decided(service: Service) -> None:
    job = service.http.get(ended(service, "told", "quarantined")).json()
    assert job["status"] == "succeeded"
    assert (job["gate"]["outcome"], job["gate"]["available"], job["gate"]["overrides"]) == ("quarantined", False, [])
    assert job["links"]["adapter"] is None
    listed = {each["id"]: each for each in service.http.get("/jobs?limit=100").json()["data"]}
    assert listed[job["id"]]["gate"] == job["gate"]


def test_what_is_released_is_handed_out(service: Service) -> None:
    job = ended(service, "released", "released")
    told = service.http.get(job).json()
    assert told["gate"] == {
        "outcome": "released",
        "reasons": [],
        "notes": [],
        "policy_version": 0,
        "available": True,
        "overrides": [],
    }
    assert service.http.get(told["links"]["adapter"]).content == FILES["adapter.tar"][0]


def test_a_job_that_waits_has_nothing_to_decide_about(service: Service) -> None:
    assert service.http.get(f"/jobs/{service.job('waits for the gate')}").json()["gate"] is None


def test_a_job_from_before_the_gate_is_withheld(service: Service) -> None:
    job = ended(service, "old", "released")
    with transaction(service.sessions) as session:
        session.execute(text("update jobs set gate = null where id = :id"), {"id": job.removeprefix("/jobs/")})
    reply = service.http.get(f"{job}/adapter")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "gate_undecided")
    assert reply.json()["error"]["reasons"][0]["code"] == "not_decided"


def test_an_override_takes_a_right_and_a_reason(service: Service) -> None:
    job = ended(service, "override", "quarantined")
    plain = service.http.post(f"{job}/gate/override", json=WHY)
    assert (plain.status_code, plain.json()["error"]["code"]) == (403, "missing_right")
    assert "--right override" in plain.json()["error"]["message"]
    wrong = service.http.post(f"{job}/gate/override", json=WHY, headers=service.new_key("p", "policy"))
    assert wrong.status_code == 403
    assert service.http.get(f"{job}/adapter").status_code == 403, "nothing was let out"
    able = service.new_key("security", "override")
    for body in (None, {"reason": "short"}, {"reason": " " * 20}):
        assert service.http.post(f"{job}/gate/override", json=body, headers=able).status_code == 422
    reply = service.http.post(f"{job}/gate/override", json=WHY, headers=able)
    told = reply.json()["gate"]
    assert (reply.status_code, told["outcome"], told["available"]) == (200, "quarantined", True)
    (record,) = told["overrides"]
    assert (record["reason"], record["key_name"], record["outcome"]) == (WHY["reason"], "security", "quarantined")
    for path in TRAINED:
        assert service.http.get(f"{job}/{path}").status_code == 200
    events = [each["event"] for each in service.http.get(f"{job}/events").json()["data"]]
    assert [each["reason"] for each in events if each["type"] == "gate_overridden"] == [WHY["reason"]]


def test_a_repair_is_a_job_of_its_own_and_the_repaired_one_stays_in_quarantine(service: Service) -> None:
    job = ended(service, "to be repaired", "quarantined")
    before = service.http.get(job).json()
    reply = service.http.post(f"{job}/repair", json={"steps": 7})
    assert reply.status_code == 201, reply.text
    made = reply.json()
    spec, old = made["spec"], before["spec"]
    assert reply.headers["location"] == f"/jobs/{made['id']}"
    assert (made["status"], spec["repairs"], f"/jobs/{made['id']}" == job) == ("queued", before["id"], False)
    assert (spec["strategy"]["kind"], spec["strategy"]["steps"]) == ("repair", 7)
    assert [run["label"] for run in spec["compare"]] == ["scaled"]
    kept = ("base_model", "dataset", "training", "security", "quality", "policy")
    assert {name: spec[name] for name in kept} == {name: old[name] for name in kept}
    assert service.http.get(job).json() == before
    assert service.http.get(f"{job}/adapter").status_code == 403
    with transaction(service.sessions) as session:
        inputs = gather(session, service.parts.catalog, JobSpec.model_validate(spec), PolicyRef())
    (file,) = inputs.repaired
    assert service.store.path(file.key).read_bytes() == FILES["adapter/adapter_model.safetensors"][0]

    again = service.http.post("/jobs", json=spec)
    assert again.status_code == 201, "the same order by hand"
    other = service.http.post("/jobs", json=spec | {"training": spec["training"] | {"lora": {"rank": 4}}})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "repair_mismatch")
    assert other.json()["error"]["param"] == "training.lora"


@pytest.mark.parametrize("outcome", ["released", "undecided"])
def test_only_what_is_in_quarantine_is_repaired(service: Service, outcome: GateOutcome) -> None:
    jobs = [ended(service, f"not to be repaired {outcome}", outcome), f"/jobs/{service.job('waits for its repair')}"]
    for job in jobs:
        reply = service.http.post(f"{job}/repair")
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "nothing_to_repair")
    assert service.http.post(f"/jobs/job_{'e' * 24}/repair").status_code == 404


def test_a_reason_that_cannot_be_kept_is_refused(service: Service) -> None:
    job = ended(service, "nul", "quarantined")
    reason = {"reason": "It was looked at \0 by us."}
    reply = service.http.post(f"{job}/gate/override", json=reason, headers=service.new_key("security", "override"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_parameter")
    assert service.http.get(f"{job}/adapter").status_code == 403, "nothing was let out"


def test_there_must_be_something_to_override(service: Service) -> None:
    able = service.new_key("security", "override")
    for job in (ended(service, "nothing to override", "released"), f"/jobs/{service.job('not ended')}"):
        reply = service.http.post(f"{job}/gate/override", json=WHY, headers=able)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "nothing_to_override")
    reply = service.http.post(f"/jobs/job_{'0' * 24}/gate/override", json=WHY, headers=able)
    assert reply.status_code == 404


def test_overrides_stay_on_record_whoever_asks(service: Service) -> None:
    job = ended(service, "for ever", "quarantined")
    service.http.post(f"{job}/gate/override", json=WHY, headers=service.new_key("security", "override"))
    job_id = job.removeprefix("/jobs/")
    url = service.parts.settings.database_url.get_secret_value()
    for statement in (
        "update gate_overrides set reason = 'nothing happened'",
        "delete from gate_overrides",
        "truncate gate_overrides",
        f"delete from jobs where id = '{job_id}'",  # noqa: S608 - an id of our own
    ):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.IntegrityError):
            connection.execute(statement)  # pyrefly: ignore[no-matching-overload]
    with transaction(service.sessions) as session:
        assert [each.reason for each in gate.overrides(session, job_id)[job_id]] == [WHY["reason"]]


def test_a_new_kind_of_weight_file_is_withheld_whatever_its_name(service: Service) -> None:
    job_id = service.job("merged weights")
    content = bytes(range(256)) * 8
    service.end(job_id, "succeeded", {"merged/model.gguf": (content, "application/octet-stream")}, "quarantined", True)
    job, path = f"/jobs/{job_id}", f"/jobs/{job_id}/artifacts/merged/model.gguf"
    (listed,) = service.http.get(f"{job}/artifacts").json()["data"]
    assert (listed["name"], listed["bytes"], listed["url"]) == ("merged/model.gguf", len(content), None)
    plain: dict[str, str] = {}
    for headers in (plain, {"range": "bytes=0-3"}, {"if-none-match": f'"{listed["sha256"]}"'}, {"if-none-match": "*"}):
        for method in ("GET", "HEAD"):
            reply = service.http.request(method, path, headers=headers)
            assert reply.status_code == 403, (method, headers)
            assert listed["sha256"] not in str(reply.headers)
    for address in ("adapter", "adapter/model.gguf", "model", "model/model.gguf"):
        assert service.http.get(f"{job}/{address}").status_code == 404, "it has no other address"
    service.http.post(f"{job}/gate/override", json=WHY, headers=service.new_key("officer", "override"))
    (listed,) = service.http.get(f"{job}/artifacts").json()["data"]
    assert listed["url"] == path
    assert service.http.get(path).content == content
    assert service.http.get(path, headers={"range": "bytes=0-3"}).content == content[:4]


def test_weights_that_another_job_quarantined_are_withheld_until_an_override(service: Service) -> None:
    """Whatever is ordered: released before or after, by archive, by file, in the list."""
    digest = "d" * 64
    earlier = ended(service, "same weights, earlier", "released", digest)
    assert service.http.get(f"{earlier}/adapter").status_code == 200
    quarantined = ended(service, "same weights, quarantined", "quarantined", digest)
    later = ended(service, "same weights, later", "released", digest)
    listed = {each["id"]: each for each in service.http.get("/jobs?limit=100").json()["data"]}
    for job in (earlier, later):
        told = service.http.get(job).json()
        assert (told["gate"]["outcome"], told["gate"]["available"], told["links"]["adapter"]) == (
            "quarantined",
            False,
            None,
        )
        assert told["gate"]["reasons"][0]["code"] == "weights_quarantined"
        assert quarantined.removeprefix("/jobs/") in told["gate"]["reasons"][0]["message"]
        assert listed[told["id"]]["gate"] == told["gate"]
        for path in (*TRAINED, "artifacts/adapter.tar"):
            reply = service.http.get(f"{job}/{path}")
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "adapter_quarantined")
            assert service.http.head(f"{job}/{path}").status_code == 403
        urls = {each["name"]: each["url"] for each in service.http.get(f"{job}/artifacts").json()["data"]}
        assert urls["adapter.tar"] is None
        assert urls["report.json"] is not None
    assert service.http.get(f"{ended(service, 'other weights', 'released', 'e' * 64)}/adapter").status_code == 200
    able = service.new_key("security", "override")
    assert service.http.post(f"{later}/gate/override", json=WHY, headers=able).status_code == 200
    for job in (earlier, later):
        assert service.http.get(f"{job}/adapter").status_code == 200, "somebody reviewed these weights"
    assert service.http.get(f"{quarantined}/adapter").status_code == 403, "its own decision was not overridden"
