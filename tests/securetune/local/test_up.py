"""securetune.local.up: the whole service is started, damaged and stopped, as a user would.

Tests that are not about the servers share one PostgreSQL and one Valkey, through DATABASE_URL and REDIS_URL.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import psycopg
import pytest

from core.config import Settings
from core.errors import Unavailable
from securetune.local import Address, running
from securetune.local.processes import living
from securetune.local.services import MARKER
from securetune.local.up import database, welcome

pytestmark = pytest.mark.slow

OWN_SERVERS = {"DATABASE_URL": "", "REDIS_URL": ""}


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """A state folder that several tests use. Each leaves it stopped; a new one takes seconds."""
    with tempfile.TemporaryDirectory(prefix="securetune-test-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="module")
def given_servers(make_database: Callable[[], AbstractContextManager[str]], redis_url: str) -> Iterator[dict[str, str]]:
    """An environment with the URLs of running servers."""
    with make_database() as database_url:
        yield {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture(scope="module")
def service(given_servers: dict[str, str]) -> Iterator[Address]:
    """A running service on `given_servers`. Tests leave it running."""
    with (
        tempfile.TemporaryDirectory(prefix="securetune-test-") as folder,
        running(Path(folder), env=given_servers) as address,
    ):
        yield address


@dataclass
class Up:
    """A running `securetune up --json`."""

    process: subprocess.Popen[str]

    def ready(self) -> Address:
        """Wait until the service is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.messages()
        return Address.model_validate_json(line)

    def await_message(self, part: str) -> None:
        """Wait until it shows a line that contains `part`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if part in line:
                return
        pytest.fail(f"it ended without the message {part!r}")

    def messages(self) -> str:
        """Return all messages that were not read yet, after it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def up(state: Path, env: Mapping[str, str], port: int = 0) -> Generator[Up]:
    command = [sys.executable, "-m", "securetune.cli.main", "up", "--json", "--port", str(port), "--state", str(state)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ) | dict(env)
    ) as process:
        try:
            yield Up(process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def strays(state: Path) -> list[psutil.Process]:
    return living(lambda process: process.environ().get(MARKER) == str(state))


def child(pid: int, word: str) -> psutil.Process:
    """The child whose command line contains `word`."""
    (found,) = [each for each in psutil.Process(pid).children() if word in " ".join(each.cmdline())]
    return found


def test_everything_starts_and_no_process_is_left_after_the_end(state: Path) -> None:
    with up(state, OWN_SERVERS) as service:
        address = service.ready()
        assert address.pid == service.process.pid
        assert address.state == state
        assert httpx2.get(f"{address.address}/healthz").status_code == 200
        headers = {"Authorization": f"Bearer {address.api_key}"}
        assert httpx2.get(f"{address.address}/models", headers=headers).status_code == 200
        assert httpx2.get(f"{address.address}/models").status_code == 401
        assert stat.S_IMODE(address.api_key_file.stat().st_mode) == 0o600
        family = descendants(address.pid)
        tcp = {c.laddr for p in family for c in p.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
        assert [f"http://{where.ip}:{where.port}" for where in tcp] == [address.address]
        assert service.end(signal.SIGINT) == 0
        assert "Stopped." in service.messages()
    assert alive(family) == []
    assert strays(state) == []
    assert {path.name for path in (state / "logs").iterdir()} >= {f"{n}.log" for n in ("api", "worker", "postgres")}
    assert not (state / "lock").read_text()


def test_a_second_service_on_the_same_state_is_an_error_and_the_first_keeps_running(
    service: Address, given_servers: dict[str, str]
) -> None:
    with up(service.state, given_servers) as second:
        assert second.process.wait(60) == 1
        message = second.messages()
    assert service.address in message
    assert str(service.pid) in message
    assert httpx2.get(f"{service.address}/healthz").status_code == 200


def test_no_server_is_started_if_urls_are_configured(service: Address) -> None:
    assert {path.name for path in service.state.iterdir()} >= {"api-key", "logs", "lock"}
    assert not (service.state / "postgres").exists()
    assert not (service.state / "valkey").exists()


def test_a_taken_port_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with up(tmp_path, OWN_SERVERS, port) as service:
            assert service.process.wait(60) == 1
            assert f"Port {port} on 127.0.0.1 is taken" in service.messages()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_killed_api_is_restarted_and_no_request_fails(service: Address) -> None:
    api = child(service.pid, "uvicorn")
    api.kill()
    api.wait(30)
    # The supervisor owns the socket, so the request waits until the new process accepts it.
    assert httpx2.get(f"{service.address}/healthz", timeout=60).status_code == 200
    assert child(service.pid, "uvicorn").pid != api.pid
    assert "Restarting it" in (service.state / "logs" / "up.log").read_text()


def test_killed_servers_and_workers_are_restarted(state: Path) -> None:
    with up(state, OWN_SERVERS) as service:
        address = service.ready()
        for word, title in (("postgres -D", "PostgreSQL"), ("valkey-server", "Valkey"), ("celery", "Worker")):
            child(address.pid, word).kill()
            service.await_message(f"{title} ended (signal SIGKILL). Restarting it")
        deadline = time.monotonic() + 60
        while httpx2.get(f"{address.address}/readyz", timeout=30).status_code != 200:
            assert time.monotonic() < deadline
        assert service.end(signal.SIGTERM) == 0
    assert strays(state) == []


def test_the_next_start_works_after_the_supervisor_was_killed(state: Path) -> None:
    with up(state, OWN_SERVERS) as service:
        address = service.ready()
        family = descendants(address.pid)
        service.process.kill()
        service.process.wait()
    with running(state, env=OWN_SERVERS) as again:
        assert alive(family) == []
        assert again.api_key == address.api_key  # the data is still there, and no second key was created
        with database(state, Settings(DATABASE_URL="")) as url, psycopg.connect(url) as session:
            assert session.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)
        assert httpx2.get(f"{again.address}/readyz").status_code == 200


def test_ctrl_c_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    with up(tmp_path, OWN_SERVERS) as service:
        service.await_message("Starting PostgreSQL")
        assert service.end(signal.SIGINT) == 0
    assert living(lambda process: process.cwd().startswith(str(tmp_path.resolve()))) == []


def test_a_failed_start_is_reported_to_the_caller(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    with pytest.raises(Unavailable, match="database cannot be reached"), running(tmp_path, env=env):
        pass


def test_an_unusable_state_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with up(tmp_path / "file" / "state", OWN_SERVERS) as service:
        assert service.process.wait(60) == 1
        assert "cannot be used: Not a directory" in service.messages()


def test_the_error_for_a_missing_database_says_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="securetune up") as missing, database(tmp_path, Settings(DATABASE_URL="")):
        pass
    assert missing.value.code == "not_running"


@pytest.mark.parametrize("new", [True, False])
def test_the_key_is_shown_only_if_it_is_new(tmp_path: Path, new: bool) -> None:
    (tmp_path / "api-key").write_text("st_secret\n")
    address = Address(address="http://127.0.0.1:8000", api_key_file=tmp_path / "api-key", state=tmp_path, pid=1)
    text = welcome(address, new)
    assert ("st_secret" in text) == new
    assert str(tmp_path / "api-key") in text
