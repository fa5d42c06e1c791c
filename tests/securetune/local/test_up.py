"""securetune.local.up: the whole service as its user starts it, with real servers; and all the ways in which it ends.

Tests that are not about the servers use those of the other tests, through DATABASE_URL and REDIS_URL.
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

OWN_SERVERS = {"DATABASE_URL": "", "REDIS_URL": ""}


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """A state directory that tests use in turn, each leaving it stopped: making a new one takes seconds."""
    with tempfile.TemporaryDirectory(prefix="securetune-test-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="module")
def given_servers(make_database: Callable[[], AbstractContextManager[str]], redis_url: str) -> Iterator[dict[str, str]]:
    """An environment that names servers which run already."""
    with make_database() as database_url:
        yield {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture(scope="module")
def service(given_servers: dict[str, str]) -> Iterator[Address]:
    """A running service on those servers. Leave it running."""
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
        """Wait until it is."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said()
        return Address.from_json(line)

    def says(self, word: str) -> None:
        """Wait until it tells the user a line with this word."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if word in line:
                return
        pytest.fail(f"it ended without saying {word!r}")

    def said(self) -> str:
        """All that it told, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def ends(self, number: signal.Signals) -> int:
        """Signal it and wait for its end."""
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


def one(pid: int, word: str) -> psutil.Process:
    """The child whose command line has this word."""
    (found,) = [child for child in psutil.Process(pid).children() if word in " ".join(child.cmdline())]
    return found


def test_everything_starts_and_ends_without_a_trace(state: Path) -> None:
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
        assert service.ends(signal.SIGINT) == 0
        assert "Stopped." in service.said()
    assert alive(family) == []
    assert strays(state) == []
    assert {path.name for path in (state / "logs").iterdir()} >= {f"{n}.log" for n in ("api", "worker", "postgres")}
    assert not (state / "lock").read_text()


def test_a_second_one_on_the_same_state_is_refused_and_the_first_left_alone(
    service: Address, given_servers: dict[str, str]
) -> None:
    with up(service.state, given_servers) as second:
        assert second.process.wait(60) == 1
        message = second.said()
    assert service.address in message
    assert str(service.pid) in message
    assert httpx2.get(f"{service.address}/healthz").status_code == 200


def test_servers_that_are_named_win(service: Address) -> None:
    assert {path.name for path in service.state.iterdir()} >= {"api-key", "logs", "lock"}
    assert not (service.state / "postgres").exists()
    assert not (service.state / "valkey").exists()


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with up(tmp_path, OWN_SERVERS, port) as service:
            assert service.process.wait(60) == 1
            assert f"Port {port} on 127.0.0.1 is taken" in service.said()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_killed_api_comes_back_and_no_call_is_refused(service: Address) -> None:
    api = one(service.pid, "uvicorn")
    api.kill()
    api.wait(30)
    # The socket is the supervisor's: this waits until the new process takes it.
    assert httpx2.get(f"{service.address}/healthz", timeout=60).status_code == 200
    assert one(service.pid, "uvicorn").pid != api.pid
    assert "starting it again" in (service.state / "logs" / "up.log").read_text()


def test_killed_servers_and_workers_come_back(state: Path) -> None:
    with up(state, OWN_SERVERS) as service:
        address = service.ready()
        for word, title in (("postgres -D", "PostgreSQL"), ("valkey-server", "Valkey"), ("celery", "Worker")):
            one(address.pid, word).kill()
            service.says(f"{title} ended (signal SIGKILL); starting it again")
        deadline = time.monotonic() + 60
        while httpx2.get(f"{address.address}/readyz", timeout=30).status_code != 200:
            assert time.monotonic() < deadline
        assert service.ends(signal.SIGTERM) == 0
    assert strays(state) == []


def test_after_a_kill_of_the_supervisor_the_next_start_works(state: Path) -> None:
    with up(state, OWN_SERVERS) as service:
        address = service.ready()
        family = descendants(address.pid)
        service.process.kill()
        service.process.wait()
    with running(state, env=OWN_SERVERS) as again:
        assert alive(family) == []
        assert again.api_key == address.api_key  # the data was kept, and no second key made
        with database(state, Settings(DATABASE_URL="")) as url, psycopg.connect(url) as session:
            assert session.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)
        assert httpx2.get(f"{again.address}/readyz").status_code == 200


def test_ctrl_c_while_it_starts_ends_it_clean(tmp_path: Path) -> None:
    with up(tmp_path, OWN_SERVERS) as service:
        service.says("Starting: PostgreSQL")
        assert service.ends(signal.SIGINT) == 0
    assert living(lambda process: process.cwd().startswith(str(tmp_path.resolve()))) == []


def test_a_failed_start_is_told_to_the_caller(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    with pytest.raises(Unavailable, match="database cannot be reached"), running(tmp_path, env=env):
        pass


def test_a_state_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with up(tmp_path / "file" / "state", OWN_SERVERS) as service:
        assert service.process.wait(60) == 1
        assert "cannot be used: Not a directory" in service.said()


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="securetune up") as missing, database(tmp_path, Settings(DATABASE_URL="")):
        pass
    assert missing.value.code == "not_running"


@pytest.mark.parametrize("new", [True, False])
def test_the_key_itself_is_shown_only_when_it_is_new(tmp_path: Path, new: bool) -> None:
    (tmp_path / "api-key").write_text("st_secret\n")
    text = welcome(Address("http://127.0.0.1:8000", tmp_path / "api-key", tmp_path, 1), new)
    assert ("st_secret" in text) == new
    assert str(tmp_path / "api-key") in text
