"""migrations.new writes a migration after which the database matches the models."""

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from core.db import migrate, schema
from core.db.models import Base
from core.db.session import driver_url
from migrations.new import write


@pytest.fixture
def empty_database(database_url: str) -> str:
    """A database without tables."""
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    return database_url


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The migrations without the newest."""
    copy = tmp_path / "migrations"
    shutil.copytree(migrate.SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__", f"{schema.newest()}_*"))
    return copy


def test_it_writes_the_difference_between_migrations_and_models(
    empty_database: str, scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("Put the newest back", empty_database, scripts)
    assert path is not None
    assert path == scripts / "versions" / f"{schema.newest()}_put_the_newest_back.py"
    assert "Put the newest back" in path.read_text().splitlines()[0]
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    migrate.upgrade(empty_database)
    engine = create_engine(driver_url(empty_database))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_it_writes_nothing_if_nothing_has_changed(empty_database: str, tmp_path: Path) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(scripts.rglob("*.py"))
    assert write("Nothing", empty_database, scripts) is None
    assert sorted(scripts.rglob("*.py")) == before


def test_without_a_message_nothing_is_started() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migrations.new", ""],
        cwd=migrate.SCRIPTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "make migration MESSAGE=" in done.stderr
