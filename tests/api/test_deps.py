"""Who may call: keys that are missing, malformed, wrong, revoked, or in the wrong place."""

import pytest

from core.db import keys
from core.db.session import transaction
from tests.api.conftest import Service

OPEN = {"/healthz", "/readyz", "/signing-keys"}
JOB_ID = "job_" + "0" * 24
NAMES = {
    "job_id": JOB_ID,
    "dataset_id": "ds_" + "0" * 24,
    "prompt_set_id": "ps_" + "0" * 24,
    "filename": "adapter_config.json",
    "name": "report.json",
    "version": "1",
}


def test_nothing_is_open_without_a_key(service: Service) -> None:
    """Every documented operation, with a plausible path and no body."""
    asked = 0
    for path, operations in service.app.openapi()["paths"].items():
        if path not in OPEN:
            for method in operations:
                reply = service.http.request(method, path.format(**NAMES), headers={"authorization": ""})
                assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
                asked += 1
    assert asked >= 20


@pytest.mark.parametrize("path", ["adapter", "adapter/adapter_config.json", "report", "robustness", "answers"])
def test_nothing_is_told_of_a_file_without_a_key(service: Service, path: str) -> None:
    reply = service.http.head(f"/jobs/{JOB_ID}/{path}", headers={"authorization": ""})
    assert reply.status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/signing-keys", "/openapi.json", "/docs"])
def test_health_and_the_documents_need_no_key(service: Service, path: str) -> None:
    assert service.http.get(path, headers={"authorization": ""}).status_code == 200


def given(service: Service, authorization: str) -> tuple[int, str]:
    reply = service.http.get("/models", headers={"authorization": authorization})
    return reply.status_code, reply.json().get("error", {}).get("code", "")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Basic dXNlcjpwYXNz", "missing_api_key"),
        ("st_000000000000_" + "A" * 43, "missing_api_key"),
        ("Bearer st_", "invalid_api_key"),
        ("Bearer st_000000000000_" + "A" * 43, "invalid_api_key"),
        ("Bearer st_000000000000_" + "A" * 44, "invalid_api_key"),
        ("Bearer " + "x" * 5000, "invalid_api_key"),
        ("Bearer st_'; drop table api_keys; --", "invalid_api_key"),
    ],
)
def test_keys_that_do_not_open(service: Service, authorization: str, code: str) -> None:
    assert given(service, authorization) == (401, code)


def test_bytes_that_are_no_text(service: Service) -> None:
    reply = service.http.get("/models", headers=[(b"authorization", b"Bearer \xff\x00\xfe"), (b"host", b"x")])
    assert reply.status_code == 401


def test_a_wrong_secret_of_a_known_key(service: Service) -> None:
    wrong = service.key[:-1] + ("A" if service.key[-1] != "A" else "B")
    assert given(service, f"Bearer {wrong}") == (401, "invalid_api_key")
    assert given(service, f"bearer {service.key}")[0] == 200


def test_a_revoked_key_is_worth_nothing_at_once(service: Service) -> None:
    with transaction(service.sessions) as session:
        key = keys.create(session, "to revoke")
    assert given(service, f"Bearer {key}")[0] == 200
    with transaction(service.sessions) as session:
        keys.revoke(session, key.split("_")[1])
    assert given(service, f"Bearer {key}") == (401, "invalid_api_key")


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "authorization"])
def test_a_key_in_the_address_is_not_looked_at(service: Service, name: str) -> None:
    reply = service.http.get("/models", params={name: service.key}, headers={"authorization": ""})
    assert reply.status_code == 401


def test_an_upload_without_a_key_is_not_read(service: Service) -> None:
    """The body would be refused for what it is: the key is asked for first."""
    for path in ("/datasets", "/prompt-sets"):
        reply = service.http.post(path, content=b"not multipart", headers={"authorization": ""})
        assert reply.status_code == 401
    assert not list((service.store.root / "staging").glob("*"))
