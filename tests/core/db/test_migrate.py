"""The migrations make what the models say, also when several processes run them at once."""

import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine

from core.db import migrate
from core.db.models import Base
from core.db.session import driver_url
from core.errors import Unavailable


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """A database without a table, beside the test's own."""
    name = urlsplit(database_url).path[1:] + "_empty"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(database_url)._replace(path=f"/{name}").geturl()
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_migrations_make_what_the_models_say(database_url: str) -> None:
    engine = create_engine(driver_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_one_line_of_migrations_and_each_says_what_it_does() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert len(scripts.get_heads()) == 1
    assert all(script.doc for script in scripts.walk_revisions())


def test_several_processes_at_once_migrate_once(empty_database: str) -> None:
    program = f"from core.db import migrate; migrate.upgrade({empty_database!r})"
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=migrate.SCRIPTS.parent) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select count(*) from alembic_version").fetchone() == (1,)
        assert connection.execute("select count(*) from jobs").fetchone() == (0,)


def test_a_database_that_is_away_is_said_so() -> None:
    with pytest.raises(Unavailable) as caught:
        migrate.upgrade("postgresql://nobody@/nothing?host=/nonexistent")
    assert caught.value.code == "database_unavailable"


def test_a_database_of_a_newer_version_is_told(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(Unavailable) as caught:
        migrate.upgrade(database_url)
    assert caught.value.code == "database_newer"
