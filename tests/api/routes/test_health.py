"""What runs, what is down, and how the API lives without its database and its broker."""

import socket
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql

from api.main import create_app
from core import queue
from core.data import validate
from core.db import keys, schema
from core.db.session import dispose, sessions, transaction
from core.schemas.data import ColumnMap, DatasetSummary
from securetune.local.servers import ValkeyServer
from tests.api.conftest import Service, jsonl, settings_for

SLOWEST = 4.5
ROWS = jsonl([{"prompt": "a", "completion": "b"}])


@contextmanager
def served(database_url: str, redis_url: str, state: Path) -> Generator[Service]:
    app = create_app(settings_for(database_url, redis_url, state))
    with TestClient(app) as http:
        yield Service(app, http, "")


def login(service: Service, database_url: str) -> None:
    """Make a key past the app, which may not be able to reach its database yet."""
    factory = sessions(database_url)
    with transaction(factory) as session:
        service.http.headers["authorization"] = f"Bearer {keys.create(session, 'test')}"
    dispose(factory)


@contextmanager
def database_away(server: str, database_url: str) -> Generator[None]:
    """Nobody can connect to one database, and who is connected is thrown out."""
    name = urlsplit(database_url).path[1:]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        try:
            yield
        finally:
            admin.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


def assert_away(service: Service, method: str, path: str) -> None:
    begin = time.monotonic()
    reply = service.http.request(method, path)
    assert time.monotonic() - begin < SLOWEST
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "database_unavailable")
    assert reply.json()["error"]["type"] == "service_error"
    assert reply.headers["retry-after"]


def test_everything_is_up(service: Service) -> None:
    assert service.http.get("/healthz", headers={"authorization": ""}).json() == {"status": "ok"}
    reply = service.http.get("/readyz", headers={"authorization": ""})
    assert (reply.status_code, reply.json()) == (200, {"database": "up", "broker": "up"})


def test_the_newest_migration_is_the_one_that_ran(service: Service) -> None:
    with transaction(service.sessions) as session:
        assert schema.is_current(session)


def test_the_database_is_down_at_the_start_and_comes(
    database_server: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with served(database_url, redis_url, tmp_path) as service:
        login(service, database_url)
        with database_away(database_server, database_url):
            assert service.http.get("/healthz").status_code == 200
            ready = service.http.get("/readyz")
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
            assert ready.json()["error"]["readiness"] == {"database": "down", "broker": "up"}
            assert_away(service, "GET", "/jobs")
        assert service.http.get("/jobs").status_code == 200
        assert service.http.get("/readyz").status_code == 200


def test_the_database_goes_away_in_the_middle_and_comes_back(
    database_server: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with served(database_url, redis_url, tmp_path) as service:
        login(service, database_url)
        job_id = service.job("before")
        with database_away(database_server, database_url):
            for method, path in (("GET", "/jobs"), ("POST", "/datasets"), ("POST", f"/jobs/{job_id}/cancel")):
                assert_away(service, method, path)
            assert service.upload(ROWS).status_code == 503
        assert service.http.get(f"/jobs/{job_id}").json()["status"] == "queued"
        assert service.upload(ROWS).status_code == 201


def test_a_database_that_goes_while_a_file_is_checked_leaves_no_file(
    database_server: str, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was good; the database goes before the row is written."""
    with ExitStack() as outage, served(database_url, redis_url, tmp_path) as service:
        login(service, database_url)

        def check(path: Path, columns: ColumnMap | None, *, max_rows: int) -> DatasetSummary:
            summary = validate(path, columns, max_rows=max_rows)
            outage.enter_context(database_away(database_server, database_url))
            return summary

        monkeypatch.setattr("core.orders.upload.validate", check)
        assert service.upload(ROWS).status_code == 503
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_database_that_does_not_answer_costs_seconds_and_no_more(redis_url: str, tmp_path: Path) -> None:
    """A machine that is there and silent: it takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/none"
        with served(url, redis_url, tmp_path) as service:
            service.http.headers["authorization"] = "Bearer st_000000000000_" + "A" * 43
            assert_away(service, "GET", "/jobs")


def test_nobody_listens_where_the_database_should_be(redis_url: str, tmp_path: Path) -> None:
    with served(f"postgresql:///none?host={tmp_path}", redis_url, tmp_path) as service:
        service.http.headers["authorization"] = "Bearer st_000000000000_" + "A" * 43
        assert_away(service, "GET", "/jobs")


@pytest.mark.parametrize("lack", ["drop table alembic_version", "update alembic_version set version_num = '9999'"])
def test_a_schema_of_another_version_is_told_apart(
    database_url: str, redis_url: str, tmp_path: Path, lack: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(lack.encode())
    with served(database_url, redis_url, tmp_path) as service:
        ready = service.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["error"]["readiness"] == {"database": "not_migrated", "broker": "up"}
        assert "not migrated" in ready.json()["error"]["message"]


def test_a_database_without_tables_is_no_bug_of_the_server(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema public cascade; create schema public")
    with served(database_url, redis_url, tmp_path) as service:
        reply = service.http.get("/jobs", headers={"authorization": "Bearer st_000000000000_" + "A" * 43})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "database_not_migrated")


@pytest.fixture
def broker_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="securetune-test-") as folder:
        yield Path(folder)


def test_the_broker_goes_and_comes_back_and_no_job_is_lost(
    make_database: Callable[[], AbstractContextManager[str]],
    broker_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = ValkeyServer(broker_folder)
    with make_database() as database_url, broker, served(database_url, broker.url, tmp_path) as service:
        login(service, database_url)
        service.job("broker up")
        assert queue.depth(service.celery) == 1
        broker.stop()
        begin = time.monotonic()
        waiting = service.job("broker down")
        assert time.monotonic() - begin < SLOWEST
        assert service.http.get(f"/jobs/{waiting}").json()["status"] == "queued"
        assert any(waiting in record.getMessage() for record in caplog.records)
        ready = service.http.get("/readyz")
        assert ready.json()["error"]["readiness"] == {"database": "up", "broker": "down"}
        broker.start()
        assert service.http.get("/readyz").status_code == 200
        before = queue.depth(service.celery)
        service.job("broker up again")
        assert queue.depth(service.celery) == before + 1


def test_no_secret_is_told(redis_url: str, tmp_path: Path) -> None:
    with served(f"postgresql://u:hunter2@/none?host={tmp_path}", redis_url, tmp_path) as service:
        assert "hunter2" not in service.http.get("/readyz").text + service.http.get("/healthz").text
