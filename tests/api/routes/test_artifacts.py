"""Files of a finished job: whole, by ranges, with their digests; and nobody else's files."""

import json
import shutil
from base64 import b64encode
from hashlib import sha256

import pytest
from httpx2 import Response

from core.catalog import TESTBED
from tests.api.conftest import Service

ADAPTER = bytes(range(256)) * 500
CONFIG = b'{"r": 16}'
PAGE = b"<!doctype html><title>Report</title><script>alert(1)</script>"
FILES = {
    "adapter.tar": (ADAPTER, "application/x-tar"),
    "adapter/adapter_config.json": (CONFIG, "application/json"),
    "adapter/adapter_model.safetensors": (b"\0" * 10, "application/octet-stream"),
    "adapter/empty.txt": (b"", "text/plain"),
    "report.json": (b'{"version": 1}', "application/json"),
    "report.html": (PAGE, "text/html; charset=utf-8"),
    "robustness.json": (b"[]", "application/json"),
    "answers.jsonl": (b"{}\n", "application/jsonl"),
    "notes.txt": (b"x", "text/plain"),
}
DOWNLOADS = {
    "adapter": "adapter.tar",
    "adapter/adapter_config.json": "adapter/adapter_config.json",
    "adapter/empty.txt": "adapter/empty.txt",
    "report": "report.json",
    "report?format=json": "report.json",
    "report?format=html": "report.html",
    "robustness": "robustness.json",
    "answers": "answers.jsonl",
}


@pytest.fixture(scope="module")
def finished(service: Service) -> str:
    job_id = service.job("finished")
    service.end(job_id, "succeeded", FILES)
    return f"/jobs/{job_id}"


@pytest.mark.parametrize("path", DOWNLOADS)
def test_every_file_comes_with_its_digest(service: Service, finished: str, path: str) -> None:
    content, media_type = FILES[DOWNLOADS[path]]
    reply = service.http.get(f"{finished}/{path}")
    assert (reply.status_code, reply.content) == (200, content)
    assert reply.headers["content-type"].startswith(media_type.split(";")[0])
    assert reply.headers["etag"] == f'"{sha256(content).hexdigest()}"'
    assert reply.headers["repr-digest"] == f"sha-256=:{b64encode(sha256(content).digest()).decode()}:"
    assert reply.headers["x-content-type-options"] == "nosniff"
    head = service.http.head(f"{finished}/{path}")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "repr-digest", "content-type"):
        assert head.headers[name] == reply.headers[name]


def test_the_list_leads_to_every_file(service: Service, finished: str) -> None:
    body = service.http.get(f"{finished}/artifacts").json()
    assert [item["name"] for item in body["data"]] == sorted(FILES)
    for item in body["data"]:
        content, _ = FILES[item["name"]]
        reply = service.http.get(item["url"])
        assert reply.content == content
        assert reply.headers["content-disposition"].startswith("attachment")
        assert (item["bytes"], item["sha256"]) == (len(content), sha256(content).hexdigest())


def test_a_whole_model_has_addresses_of_its_own(service: Service) -> None:
    order = {"base_model": "testbed", "dataset": service.dataset("whole"), "training": {"method": "full"}}
    job = service.http.post("/jobs", json=order).json()
    assert job["spec"]["training"]["learning_rate"] == pytest.approx(TESTBED.learning_rate / 10), (
        "a tenth of what an adapter takes"
    )
    files = {
        "model.tar": (ADAPTER, "application/x-tar"),
        "model/config.json": (CONFIG, "application/json"),
        "model/model-00001-of-00002.safetensors": (b"\0" * 10, "application/octet-stream"),
    }
    service.end(job["id"], "succeeded", files)
    links = service.http.get(f"/jobs/{job['id']}").json()["links"]
    assert links["adapter"] is None
    assert service.http.get(links["model"]).content == ADAPTER
    named = service.http.head(links["model"]).headers["content-disposition"]
    assert named == f'attachment; filename="{job["id"]}-model.tar"'
    for item in service.http.get(links["artifacts"]).json()["data"]:
        assert service.http.get(item["url"]).content == files[item["name"]][0]
    assert service.http.get(f"/jobs/{job['id']}/adapter").status_code == 404


def test_links_lead_to_files_of_a_finished_job(service: Service, finished: str) -> None:
    links = service.http.get(finished).json()["links"]
    for name in ("adapter", "report", "robustness", "answers"):
        assert service.http.get(links[name]).status_code == 200


def ranged(service: Service, finished: str, given: str, **headers: str) -> Response:
    return service.http.get(f"{finished}/adapter", headers={"range": given, **headers})


@pytest.mark.parametrize(
    ("given", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=127999-", 127_999, 128_000),
        ("bytes=-5", 127_995, 128_000),
        ("bytes=500-999999999", 500, 128_000),
    ],
)
def test_a_part_of_a_file(service: Service, finished: str, given: str, begin: int, end: int) -> None:
    reply = ranged(service, finished, given)
    assert (reply.status_code, reply.content) == (206, ADAPTER[begin:end])
    assert reply.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(ADAPTER)}"
    assert reply.headers["repr-digest"] == service.http.head(f"{finished}/adapter").headers["repr-digest"]


@pytest.mark.parametrize("given", ["bytes=128000-", "bytes=999999-1000000"])
def test_a_part_behind_the_end(service: Service, finished: str, given: str) -> None:
    reply = ranged(service, finished, given)
    assert (reply.status_code, reply.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert reply.headers["content-range"] == "bytes */128000"


@pytest.mark.parametrize("given", ["rows=0-5", "bytes", "bytes=", "bytes=x-y", "bytes=9-5", "0-5"])
def test_a_range_that_is_not_understood_is_ignored(service: Service, finished: str, given: str) -> None:
    reply = ranged(service, finished, given)
    assert (reply.status_code, reply.content) == (200, ADAPTER)


def test_several_parts_at_once(service: Service, finished: str) -> None:
    reply = ranged(service, finished, "bytes=0-3,10-12")
    assert reply.status_code == 206
    assert reply.headers["content-type"].startswith("multipart/byteranges")
    assert ADAPTER[10:13] in reply.content


def test_a_part_only_of_the_file_that_is_known(service: Service, finished: str) -> None:
    etag = service.http.head(f"{finished}/adapter").headers["etag"]
    assert ranged(service, finished, "bytes=5-9", **{"if-range": etag}).content == ADAPTER[5:10]
    for other in ('"other"', f"W/{etag}"):
        assert ranged(service, finished, "bytes=5-9", **{"if-range": other}).content == ADAPTER
        assert ranged(service, finished, "bytes=999999-", **{"if-range": other}).status_code == 200


def test_a_range_of_an_empty_file(service: Service, finished: str) -> None:
    reply = service.http.get(f"{finished}/adapter/empty.txt", headers={"range": "bytes=0-"})
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_file_that_is_known_is_not_sent_again(service: Service, finished: str, form: str) -> None:
    etag = service.http.head(f"{finished}/adapter").headers["etag"]
    reply = service.http.get(f"{finished}/adapter", headers={"if-none-match": form.format(etag)})
    assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
    assert service.http.get(f"{finished}/adapter", headers={"if-none-match": '"other"'}).status_code == 200


def test_downloads_have_names(service: Service, finished: str) -> None:
    job_id = finished.rpartition("/")[2]
    named = service.http.head(f"{finished}/adapter").headers["content-disposition"]
    assert named == f'attachment; filename="{job_id}-adapter.tar"'
    named = service.http.head(f"{finished}/adapter/adapter_config.json").headers["content-disposition"]
    assert named == 'attachment; filename="adapter_config.json"'


def test_the_report_is_a_page_for_browsers_and_nothing_in_it_runs(service: Service, finished: str) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    reply = service.http.get(f"{finished}/report", headers={"accept": browser})
    assert (reply.content, reply.headers["vary"]) == (PAGE, "accept")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script" not in policy
    for accept in ("application/json", "*/*"):
        assert json.loads(service.http.get(f"{finished}/report", headers={"accept": accept}).content) == {"version": 1}
    assert service.http.get(f"{finished}/report", headers={"accept": browser}, params={"format": "json"}).json()
    assert service.http.get(f"{finished}/report", params={"format": "pdf"}).status_code == 422


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2freport.json", "report.json", "a%00b", "x" * 300, ".hidden", "notes.txt"],
)
def test_only_names_of_the_adapter_lead_to_a_file(service: Service, finished: str, name: str) -> None:
    reply = service.http.get(f"{finished}/adapter/{name}")
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("path", ["adapter", "adapter/adapter_config.json", "report", "robustness", "answers"])
@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("queued", "job_not_finished"),
        ("running", "job_not_finished"),
        ("failed", "job_failed"),
        ("cancelled", "job_cancelled"),
    ],
)
def test_a_job_that_has_not_succeeded_has_no_files(service: Service, path: str, state: str, code: str) -> None:
    job_id = service.job(f"no files {state}")
    match state:
        case "running":
            service.run(job_id)
        case "failed":
            service.end(job_id, "failed")
        case "cancelled":
            service.end(job_id, "cancelled")
        case _:
            pass
    reply = service.http.get(f"/jobs/{job_id}/{path}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, code)
    assert state in reply.json()["error"]["message"]
    assert service.http.head(f"/jobs/{job_id}/{path}").status_code == 409
    assert service.http.get(f"/jobs/{job_id}/artifacts").json()["data"] == []


def test_a_file_that_was_not_made_and_one_that_is_gone(service: Service) -> None:
    job_id = service.job("gone")
    service.end(job_id, "succeeded", {"adapter.tar": (b"x", "application/x-tar")})
    reply = service.http.get(f"/jobs/{job_id}/report")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "artifact_not_found")
    shutil.rmtree(service.store.root / "jobs" / job_id)
    reply = service.http.get(f"/jobs/{job_id}/adapter")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "artifact_missing")
