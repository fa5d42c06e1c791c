"""securetune.cli.main: the commands as users run them. `up` itself is tested in tests/securetune/local/test_up.py."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from core.config import settings
from core.db import keys
from core.db.session import once
from core.errors import NotAuthenticated
from core.signing import SigningKeys
from securetune.cli.main import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def fresh_settings() -> Iterator[None]:
    """Settings are read from the current environment, and not kept for other tests."""
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def given_database(database_url: str, fresh_settings: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """DATABASE_URL names a fresh database."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return database_url


def accepts(database_url: str, key: str) -> bool:
    try:
        with once(database_url) as session:
            keys.check(session, key)
    except NotAuthenticated:
        return False
    return True


def test_help_imports_no_large_package() -> None:
    code = "import sys, securetune.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "fastapi", "celery", "psutil", "pydantic", "torch"} & set(loaded)


def test_help_names_the_commands() -> None:
    assert {"up", "migrate", "key"} <= set(run("--help").output.split())
    assert {"create", "list", "revoke"} <= set(run("key", "--help").output.split())


def test_keys_are_created_listed_and_revoked(given_database: str) -> None:
    made = run("key", "create", "a laptop")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert accepts(given_database, key)
    key_id = key.split("_")[1]
    listed = run("key", "list").stdout
    assert key_id in listed
    assert "a laptop" in listed
    assert "valid" in listed
    assert key not in listed
    assert run("key", "revoke", key_id).exit_code == 0
    assert not accepts(given_database, key)
    assert "revoked" in run("key", "list").stdout


def test_rights_and_project_are_listed_and_checked(given_database: str) -> None:
    made = run("key", "create", "officer", "--project", "team-a", "--right", "override", "--right", "policy")
    assert made.exit_code == 0
    assert "team-a  override,policy  officer" in run("key", "list").stdout
    assert run("key", "create", "x", "--right", "everything").exit_code == 2
    odd = run("key", "create", "x", "--project", "Team A")
    assert odd.exit_code == 1
    assert "is not a valid project name" in odd.stderr


def test_the_signing_key_is_rotated(tmp_path: Path) -> None:
    first = run("key", "rotate-signing", "--state", str(tmp_path))
    second = run("key", "rotate-signing", "--state", str(tmp_path))
    assert (first.exit_code, second.exit_code) == (0, 0)
    trusted = SigningKeys(tmp_path / "signing").trusted()
    assert trusted.keys[-1].keyid in second.stdout
    assert [key.retired_at is None for key in trusted.keys][-2:] == [False, True]


def test_revoking_an_unknown_key_is_an_error(given_database: str) -> None:
    unknown = run("key", "revoke", "000000000000")
    assert unknown.exit_code == 1
    assert "There is no API key '000000000000'" in unknown.stderr


@pytest.mark.usefixtures("fresh_settings")
def test_the_error_without_a_database_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    lost = run("key", "list", "--state", str(tmp_path / "none"))
    assert lost.exit_code == 1
    assert "securetune up" in lost.stderr
    assert not (tmp_path / "none").exists()


def test_migrate_creates_the_tables_and_can_be_repeated(given_database: str) -> None:
    with psycopg.connect(given_database) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    for _ in range(2):
        done = run("migrate")
        assert done.exit_code == 0
        assert "up to date" in done.stdout
        with psycopg.connect(given_database) as connection:
            assert connection.execute("select count(*) from jobs").fetchone() == (0,)


@pytest.mark.usefixtures("fresh_settings")
def test_migrate_reports_an_unreachable_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/none?host=/nonexistent")
    lost = run("migrate")
    assert lost.exit_code == 1
    assert "cannot be reached" in lost.stderr


@pytest.mark.usefixtures("fresh_settings")
def test_the_error_without_the_local_service_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setitem(sys.modules, "securetune.local.up", None)
    lost = run("migrate")
    assert lost.exit_code == 1
    assert "DATABASE_URL is not set" in lost.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_an_invalid_port_is_an_error(port: str) -> None:
    assert run("up", "--port", port).exit_code == 2
