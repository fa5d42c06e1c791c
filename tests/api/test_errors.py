"""One shape for every error, whoever raised it; and a request id on every response."""

import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from api import errors
from api.context import RequestContext
from core.errors import (
    Conflict,
    InvalidDataset,
    InvalidInput,
    InvalidModel,
    NotAuthenticated,
    NotFound,
    SecureTuneError,
    StorageFull,
    TooLarge,
    TrainingFailed,
    Unavailable,
)
from core.schemas.data import RowError

ROWS = tuple(RowError(line=n, column=None, reason="wrong") for n in range(1, 151))
RAISED: dict[str, tuple[Exception, int, str, str]] = {
    "input": (InvalidInput("Bad.", param="x"), 400, "invalid_request_error", "invalid_input"),
    "dataset": (InvalidDataset("Rows.", errors=ROWS, count=900), 400, "invalid_request_error", "invalid_dataset"),
    "model": (InvalidModel("No.", code="model_not_allowed"), 400, "invalid_request_error", "model_not_allowed"),
    "key": (NotAuthenticated("Who?"), 401, "authentication_error", "invalid_api_key"),
    "none": (NotFound("None."), 404, "not_found_error", "not_found"),
    "conflict": (Conflict("Not now.", code="job_ended"), 409, "conflict_error", "job_ended"),
    "large": (TooLarge("Less."), 413, "invalid_request_error", "too_large"),
    "away": (Unavailable("Down.", code="database_unavailable"), 503, "service_error", "database_unavailable"),
    "full": (StorageFull("Full."), 507, "service_error", "storage_full"),
    "ours": (TrainingFailed("It exploded."), 500, "service_error", "training_failed"),
    "teapot": (HTTPException(418, "Tea."), 418, "invalid_request_error", "http_error"),
    "bug": (ZeroDivisionError("secret: hunter2"), 500, "service_error", "internal_error"),
}


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(RequestContext)

    @app.get("/raise/{name}")
    def fail(name: str) -> None:
        raise RAISED[name][0]

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("name", RAISED)
def test_every_error_has_the_one_shape(http: TestClient, name: str) -> None:
    error, status, kind, code = RAISED[name]
    reply = http.get(f"/raise/{name}")
    body = reply.json()["error"]
    assert reply.status_code == status
    assert (body["type"], body["code"]) == (kind, code)
    assert body.keys() - {"details", "count"} == {"message", "type", "param", "code"}
    assert body["param"] == getattr(error, "param", None)
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "retry-after" in reply.headers if status == 503 else True
    assert "www-authenticate" in reply.headers if status == 401 else True


def test_a_hundred_rows_and_the_count_of_all(http: TestClient) -> None:
    body = http.get("/raise/dataset").json()["error"]
    assert (len(body["details"]), body["count"], body["param"]) == (100, 900, "file")
    assert body["details"][0] == {"line": 1, "column": None, "reason": "wrong"}


def test_what_was_not_expected_is_logged_with_the_id_and_not_told(
    http: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    reply = http.get("/raise/bug", headers={"x-request-id": "mine-7"})
    assert "hunter2" not in reply.text
    assert "mine-7" in reply.json()["error"]["message"]
    record = next(record for record in caplog.records if record.name == "securetune.api")
    assert record.levelno == logging.ERROR
    assert "mine-7" in record.getMessage()
    assert record.exc_info is not None


def test_the_caller_s_request_id_comes_back(http: TestClient) -> None:
    assert http.get("/nowhere", headers={"x-request-id": "a.B-1_2"}).headers["x-request-id"] == "a.B-1_2"


@pytest.mark.parametrize("bad", ["", "two words", "x" * 129, "a;b", "\xe9"])
def test_a_request_id_that_is_no_plain_word_is_replaced(http: TestClient, bad: str) -> None:
    reply = http.get("/nowhere", headers={b"x-request-id": bad.encode("latin-1")})
    assert reply.headers["x-request-id"].startswith("req_")


def test_no_such_address_and_no_such_method(http: TestClient) -> None:
    assert http.get("/nowhere").json()["error"]["code"] == "not_found"
    reply = http.delete("/raise/input")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "GET"


def test_every_class_has_a_status() -> None:
    def below(kind: type[SecureTuneError]) -> Iterator[type[SecureTuneError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    assert all(any(parent in errors.STATUS for parent in kind.__mro__) for kind in below(SecureTuneError))


@pytest.mark.parametrize(
    ("place", "body", "absent", "path"),
    [
        (("training", "epochs"), {"training": {"epochs": 0}}, False, "training.epochs"),
        (("strategy", "ml_lr", "ratio"), {"strategy": {"ratio": 3}}, False, "strategy.ratio"),
        (("compare", 1, "uniform", "x"), {"compare": [{}, {"x": 1}]}, False, "compare[1].x"),
        (
            ("training", "lora", "targets", "literal['all']"),
            {"training": {"lora": {"targets": 3}}},
            False,
            "training.lora.targets",
        ),
        (("dataset",), {}, True, "dataset"),
        (("training", "ml_lr"), {"training": {}}, False, "training"),
        (("limit",), None, False, "limit"),
        (("\ud800",), {"\ud800": 1}, False, "\\ud800"),
    ],
)
def test_paths_are_those_of_the_body(place: tuple[int | str, ...], body: object, absent: bool, path: str) -> None:
    assert errors.field_path(place, body, absent=absent) == path


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.integers(-3, 3), st.text(max_size=5)), max_size=6),
    st.recursive(
        st.none() | st.text(max_size=3),
        lambda s: st.lists(s, max_size=2) | st.dictionaries(st.text(max_size=3), s, max_size=2),
    ),
)
def test_no_path_breaks_the_answer(place: list[int | str], body: object) -> None:
    assert len(errors.field_path(place, body, absent=True).encode()) < 5000
