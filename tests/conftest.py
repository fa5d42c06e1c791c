"""Real servers for the tests: PostgreSQL and Valkey from wheels, or those in DATABASE_URL and REDIS_URL.

Databases are copies of one that is migrated once. They are emptied and used again, because copying one and connecting
to it for the first time take as long as many tests. Not here: the fixtures of single folders.
"""

import os
import resource
import secrets
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from core.db import migrate
from securetune.local.servers import PostgresServer, ValkeyServer

# Idle OpenMP threads sleep instead of spinning, because spinning makes torch many times slower on few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Background jobs of a shell ignore SIGINT, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

MakeDatabase = Callable[[], AbstractContextManager[str]]

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
_SCHEMA = (
    "SELECT version_num FROM alembic_version",
    "SELECT attrelid::regclass::text, attname, atttypid, attnotnull FROM pg_attribute JOIN pg_class ON "
    "pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND attnum > 0 ORDER BY 1, 2",
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace "
    "ORDER BY 1",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, so that no process waits at the end for a file that another one works on."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """URL of a PostgreSQL server on which databases can be created."""
    if given := os.environ.get("DATABASE_URL"):
        yield urlsplit(given)._replace(scheme="postgresql").geturl()
        return
    with (
        tempfile.TemporaryDirectory(prefix="securetune-test-") as folder,
        PostgresServer(Path(folder, "postgres"), durable=False) as server,
    ):
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Redis-compatible broker. Its queue may contain messages of other tests."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with (
        tempfile.TemporaryDirectory(prefix="securetune-test-") as folder,
        ValkeyServer(Path(folder, "valkey")) as server,
    ):
        yield server.url


@pytest.fixture(scope="session")
def make_database(database_server: str) -> Iterator[MakeDatabase]:
    """Function that creates a migrated, empty database for a `with` block, for fixtures with a wider scope than one
    test."""
    with psycopg.connect(database_server, autocommit=True) as admin:
        databases = _Databases(admin, database_server)
        yield databases.lend
        databases.close()


@pytest.fixture
def database_url(make_database: MakeDatabase) -> Iterator[str]:
    """URL of a new, migrated database for one test."""
    with make_database() as url:
        yield url


@pytest.fixture
def no_room() -> Iterator[None]:
    """Limits files to 64 KiB; larger writes fail like on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class _Databases:
    """The databases of one process of tests."""

    def __init__(self, admin: psycopg.Connection, server: str) -> None:
        self._admin, self._server = admin, server
        self._free: list[str] = []
        self._template = self._create("template1")
        migrate.upgrade(self._url(self._template))
        with self._connect(self._template) as connection:
            self._schema = _read_schema(connection)

    @contextmanager
    def lend(self) -> Generator[str]:
        """A database that nobody else uses."""
        name = self._free.pop() if self._free else self._create(self._template)
        try:
            yield self._url(name)
        finally:
            if self._empty(name):
                self._free.append(name)
            else:
                self._drop(name)

    def close(self) -> None:
        """Drop all databases."""
        for name in (*self._free, self._template):
            self._drop(name)

    def _create(self, template: str) -> str:
        name = f"securetune_test_{secrets.token_hex(6)}"
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return name

    def _drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _url(self, name: str) -> str:
        return urlsplit(self._server)._replace(path=f"/{name}").geturl()

    def _connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(self._url(name), autocommit=True)

    def _empty(self, name: str) -> bool:
        """Remove all rows, as a superuser may; False if that is impossible or a test has changed the schema."""
        try:
            self._admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            with self._connect(name) as connection:
                if _read_schema(connection) != self._schema:
                    return False
                # Without triggers, of which one keeps overrides of the gate on record.
                connection.execute("SET session_replication_role = replica; SET lock_timeout = '5s'")
                tables = [sql.Identifier(table) for (table,) in connection.execute(_TABLES)]
                connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.SQL(", ").join(tables)))
        except psycopg.Error:
            return False
        return True


def _read_schema(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """Everything that a migration changes, and its number."""
    return [row for query in _SCHEMA for row in connection.execute(query)]
