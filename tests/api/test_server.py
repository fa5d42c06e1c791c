"""A real server process: large uploads, callers that go away, and the client on the other end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from core.db import keys
from core.db.session import once
from securetune import ApiError, SecureTune

ROOT = Path(__file__).parents[2]
LIMIT = 48 * 2**20
ROW = json.dumps({"prompt": "What is said here?", "completion": "x" * 2000}) + "\n"


@dataclass(frozen=True)
class Server:
    """A uvicorn process, and a key that opens it."""

    url: str
    key: str
    state: Path
    pid: int

    @property
    def staging(self) -> list[Path]:
        return list((self.state / "artifacts" / "staging").glob("*"))

    def peak_bytes(self) -> int:
        """The most memory it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@pytest.fixture(scope="module")
def server(
    make_database: Callable[[], AbstractContextManager[str]], redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    state = tmp_path_factory.mktemp("state")
    with make_database() as database_url, socket.create_server(("127.0.0.1", 0)) as listener:
        # asyncio sets this for sockets of its own making; without it every answer waits for a delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with once(database_url) as session:
            key = keys.create(session, "test")
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "SECURETUNE_STATE": str(state),
            "SECURETUNE_MAX_UPLOAD_BYTES": str(LIMIT),
        }
        program = ["-m", "uvicorn", "--factory", "api.main:create_app", "--fd", str(listener.fileno())]
        process = subprocess.Popen(
            [sys.executable, *program, "--log-level", "warning"],
            cwd=ROOT,
            env=os.environ | environment,
            pass_fds=[listener.fileno()],
        )
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Server(url, key, state, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.fixture
def service(server: Server) -> Iterator[SecureTune]:
    with SecureTune(server.url, server.key) as service:
        yield service


def rows_file(folder: Path, megabytes: int, tag: str = "") -> Path:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "tag", "completion": f"tag {tag}"}) + "\n" + ROW * (megabytes * 490))
    return path


def test_a_large_upload_is_streamed_at_both_ends(server: Server, service: SecureTune, tmp_path: Path) -> None:
    service.upload_dataset(rows_file(tmp_path, 1))
    path = rows_file(tmp_path, 32)
    before = server.peak_bytes()
    dataset = service.upload_dataset(path, name="large")
    assert dataset.bytes == path.stat().st_size > 30 * 2**20
    assert dataset.sha256 == sha256(path.read_bytes()).hexdigest()
    assert dataset.summary.rows == 32 * 490 + 1
    assert server.peak_bytes() - before < 12 * 2**20
    assert server.staging == []


def test_a_job_from_the_file_to_its_first_event(server: Server, service: SecureTune, tmp_path: Path) -> None:
    dataset = service.upload_dataset(rows_file(tmp_path, 1, "job"))
    job = service.create_job({"base_model": "testbed", "dataset": dataset.id})
    assert service.job(job.id) == job
    assert [event.event.type for event in service.events(job.id)] == ["status"]
    assert service.cancel(job.id).status == "cancelled"


def test_an_upload_over_the_limit_is_answered(server: Server, service: SecureTune, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        service.upload_dataset(rows_file(tmp_path, 56))
    assert (caught.value.status, caught.value.code) == (413, "too_large")
    assert server.staging == []


def test_a_large_upload_with_a_wrong_key_is_answered_and_not_kept(server: Server, tmp_path: Path) -> None:
    with SecureTune(server.url, "st_wrong") as service, pytest.raises(ApiError) as caught:
        service.upload_dataset(rows_file(tmp_path, 20))
    assert caught.value.status == 401
    assert server.staging == []


def wait_for(server: Server, count: int) -> None:
    """Ask something else of the server until what it has in staging is `count`: each answer is a turn of its loop."""
    with httpx2.Client(base_url=server.url) as http:
        for _ in range(2000):
            if len(server.staging) == count:
                return
            http.get("/healthz")
    raise AssertionError(f"{server.staging} instead of {count}")


@pytest.mark.parametrize("announced", [True, False])
def test_a_caller_who_goes_away_leaves_nothing(server: Server, announced: bool) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    length = "Content-Length: 9000000" if announced else "Transfer-Encoding: chunked"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n' + ROW.encode() * 1000
    body = part if announced else f"{len(part):x}\r\n".encode() + part + b"\r\n"
    head = (
        f"POST /datasets HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(head.encode() + body)
        wait_for(server, 1)
    wait_for(server, 0)


def test_a_body_that_ends_too_soon_is_refused(server: Server) -> None:
    reply = httpx2.post(
        f"{server.url}/datasets",
        content=b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n{"prompt": "a"',
        headers={"authorization": f"Bearer {server.key}", "content-type": "multipart/form-data; boundary=b"},
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_body")
    assert server.staging == []
