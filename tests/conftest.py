"""Real servers for the tests: PostgreSQL and Valkey from wheels, or those in DATABASE_URL and REDIS_URL.

Every database is a copy of one that is migrated once. Not here: the fixtures of single folders.
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
    """Function that creates a migrated database for a `with` block, for fixtures with a wider scope than one test."""
    with _database(database_server) as template_url:
        migrate.upgrade(template_url)
        template = urlsplit(template_url).path[1:]
        yield lambda: _database(database_server, template)


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


@contextmanager
def _database(server: str, template: str = "template1") -> Generator[str]:
    name = f"securetune_test_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(create)
        try:
            yield urlsplit(server)._replace(path=f"/{name}").geturl()
        finally:
            admin.execute(drop)
