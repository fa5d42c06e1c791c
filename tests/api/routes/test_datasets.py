"""Uploads: taken once, refused whole, found again; and what they leave behind when they fail."""

import asyncio
import gc
import json
import resource
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from threading import Event

import pytest
from httpx2 import Response
from starlette.types import Message

from core.db.models import Dataset
from core.db.rows import newest_first
from core.db.session import transaction
from tests.api.conftest import MAX_UPLOAD_BYTES, ROWS, Service, jsonl

GSM8K = b'{"question": "2 + 2?", "answer": "4"}\n{"question": "3 + 3?", "answer": "6"}\n'
COLUMNS = json.dumps({"prompt": "question", "completion": "answer"})


def files(service: Service) -> set[str]:
    """Everything in the store, but for empty folders."""
    return {str(path.relative_to(service.store.root)) for path in service.store.root.rglob("*") if path.is_file()}


def test_an_upload_is_stored_under_its_digest(service: Service) -> None:
    content = jsonl([*ROWS, {"prompt": "a", "completion": "stored"}])
    reply = service.upload(content, name="Ten rows")
    body = reply.json()
    digest = sha256(content).hexdigest()
    assert reply.status_code == 201
    assert reply.headers["location"] == f"/datasets/{body['id']}"
    assert (body["sha256"], body["bytes"], body["name"]) == (digest, len(content), "Ten rows")
    assert body["summary"]["rows"] == body["summary"]["assistant_turns"] == len(ROWS) + 1
    assert service.store.path(f"datasets/{digest[:2]}/{digest}").read_bytes() == content
    assert service.http.get(reply.headers["location"]).json() == body
    assert not any(name.startswith("staging") for name in files(service))


def test_the_same_upload_twice_is_one_dataset(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "twice"}])
    first, second = service.upload(content), service.upload(content, name="another name")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert second.headers["location"] == first.headers["location"]


def test_the_same_upload_at_the_same_time_is_one_dataset(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "at once"}] * 500)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(service.upload, [content] * 4))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 201]
    assert len({reply.json()["id"] for reply in replies}) == 1


def test_another_column_map_is_another_dataset(service: Service) -> None:
    rows = jsonl([{"prompt": "a", "completion": "b", "question": "c", "answer": "d"}])
    plain, mapped = service.upload(rows), service.upload(rows, columns=COLUMNS)
    assert (plain.status_code, mapped.status_code) == (201, 201)
    assert plain.json()["id"] != mapped.json()["id"]
    named = {name: column for name, column in mapped.json()["columns"].items() if column is not None}
    assert named == {"prompt": "question", "completion": "answer"}
    assert mapped.json()["summary"]["row_format"] == "mapped"


def test_a_lost_file_is_healed_by_the_next_upload(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "healed"}])
    digest = service.upload(content).json()["sha256"]
    key = f"datasets/{digest[:2]}/{digest}"
    service.store.path(key).unlink()
    assert service.upload(content).status_code == 200
    assert service.store.path(key).read_bytes() == content


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("C:\\data\\rows.jsonl", "rows.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("", "dataset"),
        ("a\tb.csv", "ab.csv"),
        ("é" * 300, "é" * 200),
    ],
)
def test_the_name_comes_from_the_file(service: Service, given: str, name: str) -> None:
    content = jsonl([{"prompt": "name", "completion": given or "empty"}])
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
    reply = service.http.post(
        "/datasets",
        content=body % (given.encode(), content),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert reply.json()["name"] == name


BAD_FILES = {
    "empty": (b"", 1),
    "blank": (b"\n\n  \n", 1),
    "binary": (bytes(range(256)) * 40, 1),
    "not utf-8": (b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff", "completion": "b"}\n', 1),
    "no assistant": (b'{"messages": [{"role": "user", "content": "a"}]}\n', 1),
    "not json": (b'{"prompt": "a", "completion": "b"}\n{"prompt": \n', 1),
    "unknown layout": (b'{"frage": "a", "antwort": "b"}\n', 1),
    "wrong kinds": (b'{"prompt": "a", "completion": 1}\n' * 250, 250),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_places_and_nothing_is_stored(service: Service, name: str) -> None:
    content, count = BAD_FILES[name]
    before = files(service)
    reply = service.upload(content)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_dataset", "file")
    assert error["count"] == count
    assert len(error["details"]) == min(count, 100)
    assert all(row["line"] >= 1 and row["reason"] for row in error["details"])
    assert f"line {error['details'][0]['line']}" in error["message"]
    assert files(service) == before
    assert not list((service.store.root / "staging").glob("*"))
    with transaction(service.sessions) as session:
        assert sha256(content).hexdigest() not in {row.sha256 for row in newest_first(session, Dataset, limit=100)[0]}


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("{}", "prompt"),
        ("[]", "columns"),
        ("question", "columns"),
        ('{"prompt": "question", "completion": "answer", "extra": 1}', "extra"),
        ('{"prompt": "question", "completion": ""}', "completion"),
        ('{"prompt": "question", "completion": "\\u0000"}', "NUL"),
        ('{"prompt": "question", "completion": NaN}', "completion"),
        ("{" * 5000, "columns"),
    ],
)
def test_a_bad_column_map(service: Service, columns: str, why: str) -> None:
    reply = service.upload(GSM8K, columns=columns)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_parameter", "columns")
    assert why in error["message"]


def test_a_column_that_is_not_there(service: Service) -> None:
    reply = service.upload(GSM8K, columns='{"prompt": "question", "completion": "antwort"}')
    assert reply.json()["error"]["details"][0]["column"] == "antwort"


@pytest.mark.parametrize("name", ["x" * 201, "a\nb", "a\0b"])
def test_a_bad_name(service: Service, name: str) -> None:
    reply = service.upload(GSM8K, name=name, columns=COLUMNS)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "name")


@pytest.mark.parametrize("content_type", ["application/json", "text/csv", "multipart/form-data"])
def test_a_body_that_is_no_form(service: Service, content_type: str) -> None:
    reply = service.http.post("/datasets", content=GSM8K, headers={"content-type": content_type})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_body")


def test_parts_that_do_not_belong_there(service: Service) -> None:
    reply = service.upload(GSM8K, purpose="fine-tune")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "purpose")


@contextmanager
def no_room(size: int) -> Generator[None]:
    """Lets no file of this process grow over `size`, which the system reports much as it does a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stores_nothing(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "full" * 1000}] * 700)
    assert 2**21 < len(content) < MAX_UPLOAD_BYTES
    before = files(service)
    with no_room(2**20):
        reply = service.upload(content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (507, "storage_full")
    assert files(service) == before
    assert service.upload(content).status_code == 201


def test_lists_are_newest_first_and_stable_while_uploads_arrive(service: Service) -> None:
    made = [service.dataset(f"list {n}") for n in range(5)]
    first = service.http.get("/datasets", params={"limit": 2}).json()
    service.dataset("list, later")
    second = service.http.get("/datasets", params={"limit": 3, "after": first["data"][-1]["id"]}).json()
    assert [row["id"] for row in first["data"] + second["data"]] == made[::-1]
    assert first["has_more"] is True
    assert first["object"] == "list"


def test_datasets_that_are_not_there(service: Service) -> None:
    nobody = "ds_" + "0" * 24
    reply = service.http.get(f"/datasets/{nobody}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert service.http.get("/datasets/x%00y").status_code == 404
    reply = service.http.get("/datasets", params={"after": nobody})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_cursor")


def preview(service: Service, dataset: str, accept: str = "application/json", **options: object) -> Response:
    params = {name: str(value) for name, value in ({"model": "testbed"} | options).items()}
    return service.http.get(f"/datasets/{dataset}/preview", params=params, headers={"accept": accept})


def test_a_preview_shows_what_a_job_would_train_on(service: Service) -> None:
    dataset = service.dataset("preview")
    reply = preview(service, dataset, rows=2, line=2)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert [row["line"] for row in body["rows"]] == [2, 3]
    trained = "".join(token["text"] for token in body["rows"][0]["tokens"] if token["trained"])
    assert trained == f"{ROWS[1]['completion']}{body['end_of_turn']}"
    assert body["counts"]["rows"] == len(ROWS) + 1


def test_a_preview_is_also_a_page_in_which_nothing_runs(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "page"}])
    dataset = service.upload(content, name="<script>alert(1)</script>").json()["id"]
    reply = preview(service, dataset, "text/html")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["vary"] == "accept"
    assert "<script" not in reply.text
    assert "Preview of &lt;script&gt;" in reply.text


def test_what_a_preview_needs_is_said(service: Service) -> None:
    dataset = service.dataset("preview")
    unknown = preview(service, dataset, model="other")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "model_not_allowed")
    assert unknown.json()["error"]["param"] == "model"
    gone = preview(service, "ds_" + "0" * 24)
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "dataset_id")
    for query in ("rows=0", "rows=51", "line=0", "max_length=8", "turns=first", "colour=red"):
        reply = service.http.get(f"/datasets/{dataset}/preview?model=testbed&{query}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (422, query.partition("=")[0])
    without = service.http.get(f"/datasets/{dataset}/preview")
    assert without.json()["error"]["param"] == "model"


def test_a_file_that_changed_on_the_disk_is_not_shown_and_an_upload_restores_it(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "restored"}])
    body = service.upload(content).json()
    path = service.store.path(f"datasets/{body['sha256'][:2]}/{body['sha256']}")
    path.write_bytes(content.replace(b"restored", b"replaced"))
    changed = preview(service, body["id"])
    assert (changed.status_code, changed.json()["error"]["code"]) == (400, "file_changed")
    assert service.upload(content).status_code == 200
    assert path.read_bytes() == content


def test_nothing_is_validated_for_a_caller_who_went_away_while_others_were(service: Service) -> None:
    content = jsonl([{"prompt": "a", "completion": "gone"}])
    request = service.http.build_request("POST", "/datasets", files={"file": ("rows.jsonl", content)})
    incoming = [
        {"type": "http.request", "body": request.read(), "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if len(incoming) > 1 else incoming[0]

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/datasets", "query_string": b"", "headers": headers}
    busy = Event()
    others = [service.parts.validators.submit(busy.wait, 60) for _ in range(4)]
    try:
        asyncio.run(service.app(scope, receive, send))
    finally:
        busy.set()
    assert all(other.result() for other in others)
    assert json.loads(sent[1]["body"])["error"]["code"] == "disconnected"
    assert sha256(content).hexdigest() not in {row["sha256"] for row in service.http.get("/datasets").json()["data"]}
    assert not any(name.startswith("staging") for name in files(service))
    assert service.upload(content).status_code == 201


def test_a_rejected_upload_is_an_answer_and_no_error_in_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    assert service.upload(b'{"prompt": "a"}\n').status_code == 400
    gc.collect()  # asyncio logs errors that nobody took when their future goes
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
