"""The list of base models, with the reason where one cannot be used; checks of base models."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.main import create_app
from core.db import jobs, keys
from core.db.session import transaction
from core.schemas.replies import ModelCheckReply
from tests.api.conftest import Service, settings_for
from tests.core.checks import CHECK

MODELS = """
[models.chat]
source = {{ kind = "hub", id = "org/chat", revision = "{revision}" }}
description = "A chat model."
learning_rate = 1e-4
chat_template = "plain"
unaligned_base = {{ kind = "folder", path = "/models/pretrained" }}

[models.pickled]
source = {{ kind = "folder", path = "{folder}" }}
"""


def test_models_are_listed_with_what_is_wrong_with_them(database_url: str, redis_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    listed = tmp_path / "models.toml"
    listed.write_text(MODELS.format(revision="a" * 40, folder=folder))
    settings = settings_for(database_url, redis_url, tmp_path).model_copy(update={"models": listed})
    app = create_app(settings)
    with TestClient(app) as http:
        with transaction(app.state.parts.sessions) as session:
            http.headers["authorization"] = f"Bearer {keys.create(session, 'test')}"
        models = {item["name"]: item for item in http.get("/models").json()["data"]}
    assert list(models) == ["chat", "pickled", "testbed"]
    assert (models["chat"]["hub_id"], models["chat"]["revision"]) == ("org/chat", "a" * 40)
    assert (models["chat"]["usable"], models["chat"]["learning_rate"]) == (True, 1e-4)
    assert (models["pickled"]["usable"], models["pickled"]["hub_id"]) == (False, None)
    assert "safetensors" in models["pickled"]["problem"]
    assert models["testbed"]["source"] == "folder"
    assert (models["chat"]["chat_template"], models["chat"]["unaligned_base"]) == ("plain", True)
    assert (models["testbed"]["chat_template"], models["testbed"]["unaligned_base"]) == ("own", False)


def test_a_model_that_is_added_to_the_list_needs_no_restart(database_url: str, redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(database_url, redis_url, tmp_path)
    app = create_app(settings)
    with TestClient(app) as http:
        with transaction(app.state.parts.sessions) as session:
            http.headers["authorization"] = f"Bearer {keys.create(session, 'test')}"
        assert [item["name"] for item in http.get("/models").json()["data"]] == ["testbed"]
        settings.state.mkdir(exist_ok=True)
        (settings.state / "models.toml").write_text('[models.real]\nsource = { kind = "gguf", path = "m.gguf" }\n')
        (settings.state / "m.gguf").write_bytes(b"GGUF")
        real, testbed = http.get("/models").json()["data"]
        assert (real["name"], real["source"], real["usable"], testbed["name"]) == ("real", "gguf", False, "testbed")
        assert "cut off in its metadata" in real["problem"]
        (settings.state / "models.toml").write_text("[models")
        broken = http.get("/models")
        assert (broken.status_code, broken.json()["error"]["code"]) == (503, "invalid_catalog")


def test_a_check_is_ordered_and_its_result_is_shown_to_every_project(service: Service) -> None:
    before = service.http.get("/models/testbed/check")
    assert (before.status_code, before.json()["error"]["code"]) == (404, "model_not_checked")
    assert "POST /models/testbed/check" in before.json()["error"]["message"]

    ordered = service.http.post("/models/testbed/check", json={"lengths": [128], "prompts": 20})
    assert ordered.status_code == 201, ordered.text
    job = ordered.json()
    assert ordered.headers["location"] == f"/jobs/{job['id']}"
    assert (job["spec"]["kind"], job["spec"]["lengths"], job["spec"]["lora_rank"]) == ("check", [128], 16)
    files = {"model-check.json": (CHECK.model_dump_json().encode(), "application/json")}
    service.end(job["id"], "succeeded", files)

    other = service.new_key("other", project="team-b")
    shown = service.http.get("/models/testbed/check", headers=other)
    assert shown.status_code == 200, shown.text
    assert ModelCheckReply.model_validate_json(shown.content).check == CHECK
    assert shown.json()["job_id"] == job["id"]
    assert shown.json()["measured_at"] == service.http.get(f"/jobs/{job['id']}").json()["finished_at"]


def test_a_check_leaves_nothing_for_the_gate_to_decide(service: Service) -> None:
    job = service.http.post("/models/testbed/check").json()["id"]
    with transaction(service.sessions) as session:
        jobs.finish(session, service.run(job), "succeeded")
    reply = service.http.get(f"/jobs/{job}").json()
    assert (reply["gate"], reply["links"]["report"], reply["links"]["screening"]) == (None, None, None)


def test_orders_of_checks_are_validated(service: Service) -> None:
    unknown = service.http.post("/models/gpt-4/check")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "model_not_allowed")
    assert "testbed" in unknown.json()["error"]["message"]
    bodies: tuple[dict[str, object], ...] = ({"lengths": ()}, {"lengths": (4,)}, {"batch_sizes": (0,)}, {"model": "x"})
    for body in bodies:
        assert service.http.post("/models/testbed/check", json=body).status_code == 422, body
