"""The list of base models, with the reason where one cannot be used."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.main import create_app
from core.db import keys
from core.db.session import transaction
from tests.api.conftest import settings_for

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
