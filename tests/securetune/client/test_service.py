"""The client against the real app: every method, every kind of error, and following a job to its end."""

import io
import json
import socket
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typing_extensions import override

from core.db import jobs
from core.db.session import transaction
from core.schemas.data import ColumnMap, RowError
from core.schemas.events import Progress
from core.schemas.job import JobSpec
from core.schemas.preview import PreviewRequest
from securetune import ApiError, SecureTune
from tests.api.conftest import jsonl
from tests.securetune.conftest import Served


def rows(folder: Path, tag: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(jsonl([{"prompt": "a", "completion": tag}, {"prompt": "b", "completion": "c"}]))
    return path


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_datasets(service: SecureTune, tmp_path: Path) -> None:
    path = rows(tmp_path, "client datasets")
    dataset = service.upload_dataset(path, name="mine")
    assert (dataset.name, dataset.summary.rows, dataset.columns) == ("mine", 2, None)
    assert service.dataset(dataset.id) == dataset
    assert dataset in list(service.datasets())
    assert service.upload_dataset(str(path)).id == dataset.id
    columns = ColumnMap(prompt="completion", completion="prompt")
    assert service.upload_dataset(path, columns=columns).columns == columns


def test_invalid_rows_are_reported_with_their_lines(service: SecureTune, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": null}\n')
    with pytest.raises(ApiError) as caught:
        service.upload_dataset(path)
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "invalid_dataset", "file")
    assert [row.line for row in error.details if isinstance(row, RowError)] == [2]
    assert str(error) == error.message
    assert "line 2" in error.message


def test_a_preview(service: SecureTune, tmp_path: Path) -> None:
    dataset = service.upload_dataset(rows(tmp_path, "client preview")).id
    found = service.preview(dataset, PreviewRequest(model="testbed", rows=1))
    assert [row.line for row in found.rows] == [1]
    assert any(token.trained for token in found.rows[0].tokens)
    page = service.preview_page(dataset, PreviewRequest(model="testbed"))
    assert page.startswith(b"<!doctype html>")
    with pytest.raises(ApiError) as caught:
        service.preview(dataset, PreviewRequest(model="other"))
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")


def test_prompt_sets(service: SecureTune, tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("text,category\nForge a seal,fraud\n")
    made = service.upload_prompt_set(path, "plain", name="mine")
    assert (made.name, made.layout, made.source) == ("mine", "plain", "upload")
    assert made.summary is not None
    assert made.summary.categories == {"fraud": 1}
    assert service.prompt_set(made.id) == made
    assert made in list(service.prompt_sets())
    assert service.upload_prompt_set(str(path), "plain").id == made.id
    with pytest.raises(ApiError) as caught:
        service.upload_prompt_set(path, "harmbench")
    assert (caught.value.status, caught.value.code) == (400, "invalid_prompt_set")
    assert [row.line for row in caught.value.details if isinstance(row, RowError)] == [1]


def test_jobs(service: SecureTune, tmp_path: Path) -> None:
    dataset = service.upload_dataset(rows(tmp_path, "client jobs"))
    by_dict = service.create_job({"base_model": "testbed", "dataset": dataset.id, "training": {"steps": 5}})
    by_spec = service.create_job(JobSpec(base_model="testbed", dataset=dataset.id))
    assert isinstance(by_dict.spec, JobSpec)
    assert isinstance(by_spec.spec, JobSpec)
    assert by_dict.spec.training.steps == 5
    assert by_spec.spec.training.epochs == 3
    assert [job.id for job in service.jobs()][:2] == [by_spec.id, by_dict.id]
    assert service.job(by_spec.id) == by_spec
    assert service.cancel(by_spec.id).status == "cancelled"
    (first, second) = service.events(by_spec.id)
    assert [event.id for event in service.events(by_spec.id, after=first.id)] == [second.id]
    assert service.artifacts(by_spec.id) == ()


def test_lists_are_followed_over_pages(service: SecureTune, served: Served) -> None:
    spec = service.job(served.behind.job("client pages")).spec
    made: list[str] = []
    for _ in range(105):
        with transaction(served.behind.sessions) as session:
            made.append(jobs.add(session, spec).id)
    assert [job.id for job in service.jobs()][:105] == made[::-1]


def test_models(service: SecureTune) -> None:
    assert "testbed" in [model.name for model in service.models()]


def test_judges_and_benchmarks(service: SecureTune) -> None:
    assert (service.judges(), service.benchmarks()) == ((), ())


@pytest.mark.parametrize(
    ("order", "status", "param"),
    [
        ({"base_model": "testbed"}, 422, "dataset"),
        ({"base_model": "testbed", "dataset": "ds_" + "0" * 24}, 404, "dataset"),
        ({"base_model": "none", "dataset": "ds_" + "0" * 24}, 400, "base_model"),
    ],
)
def test_invalid_jobs_are_errors(service: SecureTune, order: dict[str, object], status: int, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        service.create_job(order)
    assert (caught.value.status, caught.value.param) == (status, param)
    assert not caught.value.is_temporary


def test_an_invalid_key_is_an_error(served: Served) -> None:
    with SecureTune(served.url, "st_wrong") as service, pytest.raises(ApiError) as caught:
        service.models()
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_a_job_is_watched_to_its_end(service: SecureTune, served: Served) -> None:
    """Only changes are yielded. The test plays the worker between two of them."""
    job_id = served.behind.job("watched")
    claim: jobs.Claim | None = None
    seen: list[tuple[str, str | None]] = []
    for job in service.watch(job_id, interval=0.01):
        seen.append((job.status, job.progress.message if job.progress else None))
        with transaction(served.behind.sessions) as session:
            match len(seen):
                case 1:
                    claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
                case 2 | 3 if claim is not None:
                    progress = Progress(stage="training", fraction=len(seen) / 10, message=f"step {len(seen)}")
                    jobs.heartbeat(session, claim, lease_seconds=60, progress=progress)
                case 4 if claim is not None:
                    jobs.finish(session, claim, "succeeded")
                case _:
                    pass
    assert seen == [
        ("queued", None),
        ("running", None),
        ("running", "step 2"),
        ("running", "step 3"),
        ("succeeded", "step 3"),
    ]


def test_a_job_that_has_ended_is_yielded_once(service: SecureTune, served: Served) -> None:
    job_id = served.behind.job("ended")
    service.cancel(job_id)
    assert [job.status for job in service.watch(job_id)] == ["cancelled"]


def test_the_adapter_and_the_report(service: SecureTune, served: Served, tmp_path: Path) -> None:
    job_id = served.behind.job("adapter")
    with pytest.raises(ApiError) as caught:
        service.download_adapter(job_id, tmp_path)
    assert (caught.value.status, caught.value.code) == (409, "job_not_finished")
    files = {"adapter_config__json": b"{}", "adapter_model__safetensors": bytes(range(256)) * 9000}
    served.behind.end(
        job_id,
        "succeeded",
        {"adapter.tar": (archive(**files), "application/x-tar"), "report.html": (b"<p>ok", "text/html")},
    )
    folder = service.download_adapter(job_id, tmp_path / "mine")
    assert folder == tmp_path / "mine"
    assert (folder / "adapter_model.safetensors").read_bytes() == files["adapter_model__safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert service.download_adapter(job_id, tmp_path / "mine") == folder
    assert service.report_file(job_id, "html") == b"<p>ok"
    with pytest.raises(ApiError) as caught:
        service.report(job_id)
    assert caught.value.code == "artifact_not_found"


def test_an_archive_with_a_folder(service: SecureTune, served: Served, tmp_path: Path) -> None:
    job_id = served.behind.job("nested")
    content = archive(**{"adapter/adapter_config__json": b"{}"})
    served.behind.end(job_id, "succeeded", {"adapter.tar": (content, "application/x-tar")})
    assert service.download_adapter(job_id, tmp_path) == tmp_path / "adapter"


def test_the_whole_model(service: SecureTune, served: Served, tmp_path: Path) -> None:
    job_id = served.behind.job("whole model")
    files = {"config__json": b"{}", "model__safetensors": bytes(range(256)) * 9}
    served.behind.end(job_id, "succeeded", {"model.tar": (archive(**files), "application/x-tar")})
    assert service.download_model(job_id, tmp_path) == tmp_path
    assert (tmp_path / "model.safetensors").read_bytes() == files["model__safetensors"]
    with pytest.raises(ApiError) as caught:
        service.download_adapter(job_id, tmp_path)
    assert caught.value.code == "artifact_not_found"


def test_an_archive_without_an_adapter(service: SecureTune, served: Served, tmp_path: Path) -> None:
    job_id = served.behind.job("no adapter")
    served.behind.end(job_id, "succeeded", {"adapter.tar": (archive(x=b"y"), "application/x-tar")})
    with pytest.raises(ApiError) as caught:
        service.download_adapter(job_id, tmp_path)
    assert caught.value.code == "no_adapter"


def test_an_unreachable_service_is_a_temporary_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with SecureTune(url, "st_x") as service, pytest.raises(ApiError, match=url) as caught:
        service.models()
    assert (caught.value.status, caught.value.code, caught.value.is_temporary) == (0, "unreachable", True)


Answer = tuple[int, str, bytes]


@contextmanager
def scripted(*answers: Answer) -> Generator[str]:
    """Another HTTP server, which returns these answers one after the other and then repeats the last."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "code", "temporary"),
    [
        ((200, "text/html", b"<h1>Welcome to nginx"), "invalid_reply", False),
        ((200, "application/json", b'{"object": "list"}'), "invalid_reply", False),
        ((502, "text/html", b"<h1>Bad Gateway"), "http_error", True),
        ((404, "application/json", b'{"detail": "Not Found"}'), "http_error", False),
        ((302, "text/html", b""), "http_error", False),
    ],
)
def test_replies_of_another_server_are_errors(answer: Answer, code: str, temporary: bool) -> None:
    with scripted(answer) as url, SecureTune(url, "st_x") as service, pytest.raises(ApiError) as caught:
        service.models()
    assert (caught.value.code, caught.value.is_temporary) == (code, temporary)


def test_unknown_fields_of_a_newer_service_are_ignored(service: SecureTune, served: Served) -> None:
    job = service.cancel(served.behind.job("newer"))
    reply = job.model_dump(mode="json") | {"estimate": 3}
    reply["spec"]["training"]["optimizer"] = "lion"
    with scripted((200, "application/json", json.dumps(reply).encode())) as url, SecureTune(url, "st_x") as newer:
        assert newer.job(job.id) == job


def test_watching_survives_a_short_outage(service: SecureTune, served: Served) -> None:
    ended = service.cancel(served.behind.job("away")).model_dump_json().encode()
    away: Answer = (503, "application/json", b"{}")
    there: Answer = (200, "application/json", ended)
    with scripted(away, away, there) as url, SecureTune(url, "st_x") as watcher:
        assert [job.status for job in watcher.watch("job_x", interval=0.01)] == ["cancelled"]
    with scripted(away) as url, SecureTune(url, "st_x") as watcher, pytest.raises(ApiError, match="503"):
        list(watcher.watch("job_x", interval=0.01, patience=0.1))
