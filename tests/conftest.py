"""Real servers for the tests: PostgreSQL and Valkey from wheels, or those that DATABASE_URL and REDIS_URL name.

A database is made anew for whoever asks, as a copy of one that was migrated once. Not here: one folder's fixtures.
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

# Idle OpenMP threads sleep instead of spinning: on few cores, spinning makes torch many times slower (see bench/).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

MakeDatabase = Callable[[], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """Address of a PostgreSQL in which databases may be made."""
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
    """Address of a Redis-compatible broker. Its queue may hold messages of other tests: count none but yours."""
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
    """Makes a fresh, migrated database for the length of a `with` block: for fixtures wider than one test."""
    with _database(database_server) as template_url:
        migrate.upgrade(template_url)
        template = urlsplit(template_url).path[1:]
        yield lambda: _database(database_server, template)


@pytest.fixture
def database_url(make_database: MakeDatabase) -> Iterator[str]:
    """Address of a fresh, migrated database, for this test alone."""
    with make_database() as url:
        yield url


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file may grow over 64 KiB: the system refuses as it does when a quota is used up."""
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
