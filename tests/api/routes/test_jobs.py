"""Jobs: ordered with defaults, refused with the field's name, listed, followed, cancelled."""

import json
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import queue
from core.catalog import TESTBED
from core.db import jobs, records
from core.db.session import transaction
from core.schemas.evaluation import Figure
from core.schemas.events import Metrics, Progress
from core.schemas.job import JobSpec
from tests.api.conftest import Service

NOBODY = "job_" + "0" * 24
NO_DATASET = "ds_" + "0" * 24
FIGURE = Figure(
    run="base", suite="direct", metric="attack_success_rate", judge="rules", value=0.1, n=20, low=0.02, high=0.3
)


def post(service: Service, body: str | bytes, path: str = "/jobs") -> tuple[int, dict[str, object]]:
    reply = service.http.post(path, content=body, headers={"content-type": "application/json"})
    return reply.status_code, reply.json().get("error", {})


def test_a_base_model_and_a_dataset_are_enough(service: Service) -> None:
    dataset = service.dataset("short order")
    before = queue.depth(service.celery)
    reply = service.http.post("/jobs", json={"base_model": "testbed", "dataset": dataset})
    body = reply.json()
    assert reply.status_code == 201
    assert reply.headers["location"] == f"/jobs/{body['id']}" == body["links"]["job"]
    assert (body["status"], body["attempt"], body["figures"], body["error"]) == ("queued", 0, [], None)
    assert (body["spec"]["training"]["learning_rate"], body["spec"]["training"]["epochs"]) == (
        TESTBED.learning_rate,
        3.0,
    )
    assert body["links"]["adapter"] is None
    assert datetime.fromisoformat(body["created_at"]).tzinfo is not None
    assert queue.depth(service.celery) == before + 1
    assert service.http.get(reply.headers["location"]).json() == body


def test_what_is_stored_is_the_whole_order(service: Service) -> None:
    job_id = service.job("whole order")
    with transaction(service.sessions) as session:
        stored = JobSpec.model_validate(jobs.get(session, job_id).spec)
    assert stored.training.learning_rate == TESTBED.learning_rate
    assert stored.model_dump(mode="json") == service.http.get(f"/jobs/{job_id}").json()["spec"]


def own_template(text: str) -> str:
    return f'"security": {{"attacks": [{{"family": "templates", "templates": [{{"id": "a", "text": "{text}"}}]}}]}}'


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ('"base_model": "gpt-4"', 400, "model_not_allowed", "base_model"),
        ('"base_model": "../../etc"', 400, "model_not_allowed", "base_model"),
        ('"base_model": "meta-llama/Llama-2-7b-chat-hf"', 400, "model_not_allowed", "base_model"),
        ('"base_model": "\\u0000"', 400, "model_not_allowed", "base_model"),
        ('"base_model": ""', 422, "invalid_parameter", "base_model"),
        ('"dataset": "x"', 422, "invalid_parameter", "dataset"),
        (f'"dataset": "{NO_DATASET}"', 404, "not_found", "dataset"),
        (f'"validation_dataset": "{NO_DATASET}"', 404, "not_found", "validation_dataset"),
        ('"unknown": 1', 422, "invalid_parameter", "unknown"),
        ('"training": {"learning_rate": NaN}', 422, "invalid_parameter", "training.learning_rate"),
        ('"training": {"learning_rate": Infinity}', 422, "invalid_parameter", "training.learning_rate"),
        ('"training": {"learning_rate": 1e999}', 422, "invalid_parameter", "training.learning_rate"),
        ('"training": {"learning_rate": 0}', 422, "invalid_parameter", "training.learning_rate"),
        ('"training": {"learning_rate": "fast"}', 422, "invalid_parameter", "training.learning_rate"),
        ('"training": {"epochs": 1, "steps": 1}', 422, "invalid_parameter", "training"),
        ('"training": {"seed": 99999999999999999999999}', 422, "invalid_parameter", "training.seed"),
        ('"training": {"batch_size": 1.5}', 422, "invalid_parameter", "training.batch_size"),
        ('"training": {"lora": {"rank": 0}}', 422, "invalid_parameter", "training.lora.rank"),
        ('"training": {"lora": {"targets": ["q_proj"]}}', 400, "invalid_parameter", "training.lora.targets"),
        ('"training": {"lora": {"targets": []}}', 422, "invalid_parameter", "training.lora.targets"),
        ('"training": {"x": 1}', 422, "invalid_parameter", "training.x"),
        ('"strategy": {"kind": "eval"}', 422, "invalid_parameter", "strategy"),
        ('"strategy": {"kind": "ml_lr", "ratio": -1}', 422, "invalid_parameter", "strategy.ratio"),
        ('"strategy": {"kind": "ml_lr", "label": "base"}', 422, "invalid_parameter", None),
        ('"compare": ["recommended"]', 422, "invalid_parameter", None),
        ('"compare": [{"kind": "uniform"}, {"kind": "uniform", "x": 1}]', 422, "invalid_parameter", "compare[1].x"),
        ('"security": {"system_prompt": "\\u0000"}', 400, "invalid_parameter", "security.system_prompt"),
        ('"security": {"system_prompt": "\\ud800"}', 422, "invalid_parameter", "security.system_prompt"),
        ('"security": {"judge": "os.system"}', 422, "invalid_parameter", "security.judge"),
        ('"security": {"judges": []}', 422, "invalid_parameter", "security.judges"),
        (
            '"security": {"judges": [{"kind": "rubric", "model": "\\u0000"}]}',
            422,
            "invalid_parameter",
            "security.judges[0].model",
        ),
        (own_template("{behaviour}\\u0000"), 422, "invalid_parameter", "security.attacks[0].templates[0].text"),
        (own_template("{behaviour}\\ud800"), 422, "invalid_parameter", "security.attacks[0].templates[0].text"),
        (own_template("no place"), 422, "invalid_parameter", "security.attacks[0].templates[0]"),
        ('"security": {"prompts": "/etc/passwd"}', 422, "invalid_parameter", "security.prompts"),
        ('"security": {"prompts": 3}', 422, "invalid_parameter", "security.prompts"),
        ('"security": {"prompts": {"harmful": "a/b"}}', 422, "invalid_parameter", "security.prompts.harmful"),
        ('"\\ud800": 1', 422, "invalid_body", None),
    ],
)
def test_a_bad_order_names_its_field(service: Service, changes: str, status: int, code: str, param: str | None) -> None:
    body = f'{{"base_model": "testbed", "dataset": "{service.dataset("bad orders")}", {changes}}}'
    found, error = post(service, body)
    assert (found, error["code"], error["param"]) == (status, code, param), error
    estimated, same = post(service, body, "/jobs/estimate")
    assert (estimated, same | {"request_id": ""}) == (status, error | {"request_id": ""}), "rejected in the same way"
    if param is not None:
        assert param in str(error["message"]) or status == 404 or code == "model_not_allowed"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 422, "invalid_body"),
        ("null", 422, "invalid_body"),
        ("[]", 422, "invalid_body"),
        ('"text"', 422, "invalid_body"),
        ("{", 422, "invalid_json"),
        ('{"base_model": }', 422, "invalid_json"),
        (b"\xff\xfe\xff", 400, "invalid_body"),
        ("[" * 30_000, 400, "invalid_body"),
        ('{"a":' * 10_000, 400, "invalid_body"),
        ('{"training": {"seed": ' + "9" * 5000 + "}}", 400, "invalid_body"),
        ("{}", 422, "invalid_parameter"),
    ],
)
def test_a_body_that_is_no_order(service: Service, body: str | bytes, status: int, code: str) -> None:
    found, error = post(service, body)
    assert (found, error["code"]) == (status, code), error


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ('"epochs": 1', "epochs: unknown field"),
        ('"strategy": {"ratio": 0.5}', "strategy: missing 'kind'"),
        (
            '"strategy": {"kind": "magic"}',
            "strategy: 'kind' is 'magic', and must be one of 'uniform', 'ml_lr', "
            "'ml_lr_continuous', 'swat', 'freeze_layers', 'modules', 'repair'",
        ),
        (
            '"strategy": "best"',
            "strategy: 'best' is no strategy: give `recommended`, or an object with a `kind`",
        ),
        ('"base_model": "org/x"', "This server does not allow the base model 'org/x'. Allowed base models: testbed."),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(service: Service, field: str, message: str) -> None:
    _, error = post(service, f'{{"base_model": "testbed", "dataset": "{NO_DATASET}", {field}}}')
    assert error["message"] == message


def test_a_body_that_is_not_called_json(service: Service) -> None:
    reply = service.http.post("/jobs", content="{}", headers={"content-type": "text/plain"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_body")
    assert "application/json" in reply.json()["error"]["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*JobSpec.model_fields, "kind", "training.lora", "strategy.analysis", "\x00"])


@settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_no_order_breaks_the_server(service: Service, changes: dict[str, object]) -> None:
    order: dict[str, object] = {"base_model": "testbed", "dataset": NO_DATASET, "training": {}, "strategy": {}}
    for name, value in changes.items():
        *outer, last = name.split(".")
        target = order
        for part in outer:
            inner = target.get(part)
            target[part] = target = dict(inner) if isinstance(inner, dict) else {}
        target[last] = value
    status, error = post(service, json.dumps(order).encode("utf-8", "surrogatepass"))
    assert status in (400, 404, 422), error
    assert error["message"]


def test_lists_are_newest_first_and_stable_while_jobs_arrive(service: Service) -> None:
    made = [service.job("pages") for _ in range(5)]
    first = service.http.get("/jobs", params={"limit": 2}).json()
    newer = service.job("pages")
    second = service.http.get("/jobs", params={"limit": 3, "after": first["data"][-1]["id"]}).json()
    assert [job["id"] for job in first["data"] + second["data"]] == made[::-1]
    assert service.http.get("/jobs", params={"limit": 1}).json()["data"][0]["id"] == newer
    assert (first["object"], first["has_more"]) == ("list", True)
    assert "figures" not in first["data"][0]


@pytest.mark.parametrize(
    ("params", "status", "code", "param"),
    [
        ({"limit": 0}, 422, "invalid_parameter", "limit"),
        ({"limit": 101}, 422, "invalid_parameter", "limit"),
        ({"limit": "many"}, 422, "invalid_parameter", "limit"),
        ({"after": "x"}, 422, "invalid_parameter", "after"),
        ({"after": NOBODY}, 400, "unknown_cursor", "after"),
    ],
)
def test_bad_pages(service: Service, params: dict[str, str | int], status: int, code: str, param: str) -> None:
    reply = service.http.get("/jobs", params=params)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, code, param)


@pytest.mark.parametrize("path", ["", "/events", "/artifacts", "/adapter", "/report", "/robustness", "/answers"])
@pytest.mark.parametrize("job_id", [NOBODY, "job_1", "x%00y", "..%2f..%2fetc"])
def test_jobs_that_are_not_there(service: Service, job_id: str, path: str) -> None:
    reply = service.http.get(f"/jobs/{job_id}{path}")
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")


def test_progress_and_figures_are_seen_while_it_runs(service: Service) -> None:
    job_id = service.job("progress")
    claim = service.run(job_id)
    progress = Progress(stage="before", run="base", fraction=0.25, message="12 of 48 prompts")
    with transaction(service.sessions) as session:
        jobs.heartbeat(session, claim, lease_seconds=60, progress=progress)
        records.put_figures(session, job_id, [FIGURE])
    body = service.http.get(f"/jobs/{job_id}").json()
    assert (body["status"], body["stage"], body["attempt"]) == ("running", "before", 1)
    assert body["progress"]["fraction"] == 0.25
    assert body["figures"] == [FIGURE.model_dump(mode="json")]
    assert body["started_at"] is not None
    assert body["finished_at"] is None


def test_why_a_job_failed(service: Service) -> None:
    job_id = service.job("failure")
    service.end(job_id, "failed")
    body = service.http.get(f"/jobs/{job_id}").json()
    assert (body["status"], body["error"]["code"]) == ("failed", "training_failed")
    assert body["links"]["adapter"] is None


def test_events_are_followed_by_their_ids(service: Service) -> None:
    job_id = service.job("events")
    claim = service.run(job_id)
    with transaction(service.sessions) as session:
        for step in range(1, 6):
            event = Metrics(run="uniform", step=step, total_steps=5, loss=2.0, learning_rate=1e-3)
            records.add_event(session, job_id, claim.attempt, event)
    address = f"/jobs/{job_id}/events"
    first = service.http.get(address, params={"limit": 4}).json()
    rest = service.http.get(address, params={"after": first["data"][-1]["id"]}).json()
    events = first["data"] + rest["data"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [item["event"]["type"] for item in events] == ["status"] + ["metrics"] * 5
    assert [item["event"]["step"] for item in events[1:]] == [1, 2, 3, 4, 5]
    assert [item["attempt"] for item in events] == [0, 1, 1, 1, 1, 1]
    last = events[-1]["id"]
    assert service.http.get(address, params={"after": last}).json()["data"] == []
    assert service.http.get(address, params={"after": 2**63 - 1}).json()["data"] == []
    assert service.http.get(address, params={"after": 2**63}).status_code == 422
    assert service.http.get(address, params={"after": -1}).status_code == 422


def statuses(service: Service, job_id: str) -> list[str]:
    events = service.http.get(f"/jobs/{job_id}/events").json()["data"]
    return [item["event"]["status"] for item in events if item["event"]["type"] == "status"]


def test_a_waiting_job_is_cancelled_at_once(service: Service) -> None:
    job_id = service.job("cancel queued")
    reply = service.http.post(f"/jobs/{job_id}/cancel")
    assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    assert reply.json()["finished_at"] is not None
    assert service.http.post(f"/jobs/{job_id}/cancel").status_code == 200
    assert statuses(service, job_id) == ["queued", "cancelled"]


def test_a_running_job_is_asked_to_stop(service: Service) -> None:
    job_id = service.job("cancel running")
    claim = service.run(job_id)
    reply = service.http.post(f"/jobs/{job_id}/cancel", headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["status"]) == (202, "running")
    asked = reply.json()["cancel_requested_at"]
    again = service.http.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["cancel_requested_at"]) == (202, asked)
    assert statuses(service, job_id) == ["queued", "cancelling"]
    with transaction(service.sessions) as session:
        assert jobs.heartbeat(session, claim, lease_seconds=60, progress=None) is True
        jobs.finish(session, claim, "cancelled")
    assert service.http.post(f"/jobs/{job_id}/cancel").status_code == 200


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_job_that_has_ended_cannot_be_cancelled(service: Service, status: str) -> None:
    job_id = service.job(f"cancel {status}")
    service.end(job_id, "succeeded" if status == "succeeded" else "failed")
    reply = service.http.post(f"/jobs/{job_id}/cancel")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "job_ended")
    assert status in reply.json()["error"]["message"]
    assert service.http.get(f"/jobs/{job_id}").json()["status"] == status


def test_a_job_that_is_not_there_cannot_be_cancelled(service: Service) -> None:
    assert service.http.post(f"/jobs/{NOBODY}/cancel").status_code == 404


def test_an_estimate_makes_no_job(service: Service) -> None:
    dataset = service.dataset("estimate")
    sent, listed = queue.depth(service.celery), len(service.http.get("/jobs", params={"limit": 100}).json()["data"])
    reply = service.http.post("/jobs/estimate", json={"base_model": "testbed", "dataset": dataset})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["spec"]["training"]["epochs"] == 3.0, "defaults are filled in"
    assert body["data"]["training_rows"] + body["data"]["validation_rows"] == body["data"]["rows"]
    assert body["data"]["all_rows"]
    (run,) = body["runs"]
    assert (run["run"], run["steps"]) == ("recommended", 3 * -(-body["data"]["training_rows"] // 16))
    assert run["tokens"] >= 3 * body["data"]["tokens"]
    assert [stage["stage"] for stage in body["stages"]] == [
        "screening", "base_model", "dataset", "before", "noise", "training", "after", "report",
    ]  # fmt: skip
    assert {stage["seconds"] for stage in body["stages"]} == {None}, "nothing has been measured, so nothing is invented"
    assert (body["total"], body["memory"]["available_bytes"], body["memory"]["fits"]) == (None, None, None)
    assert body["memory"]["needed"]["total"] > 0
    assert body["warnings"][0]["code"] == "speed_unknown"
    assert "securetune models check testbed" in body["warnings"][0]["message"]
    assert queue.depth(service.celery) == sent
    assert len(service.http.get("/jobs", params={"limit": 100}).json()["data"]) == listed
