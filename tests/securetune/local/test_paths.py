"""securetune.local.paths: locks between processes, short paths for sockets, log rotation, private files."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from securetune.local.paths import InUse, locked, rotate, short_path, write_private

LOCK = """
import sys
from pathlib import Path
from securetune.local.paths import locked
with locked(Path(sys.argv[1])) as file:
    print("the owner's note", file=file, flush=True)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_cannot_lock_and_gets_the_note_of_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        with pytest.raises(InUse) as in_use, locked(path):
            pass
        assert in_use.value.note == "the owner's note\n"
        assert in_use.value.code == "already_running"
        owner.kill()
        owner.wait()
        with locked(path):
            assert path.read_text() == ""


def test_a_short_path_is_used_unchanged() -> None:
    with short_path(Path("/run/x"), "socket") as path:
        assert path == Path("/run/x").resolve()


@pytest.mark.parametrize("name", ["n" * 120, "with space", "ümlaut", "per%cent"])
def test_a_long_or_unusual_path_gets_a_private_link(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with short_path(folder, "socket") as path:
        assert len(str(path / "socket")) <= 103
        assert path.resolve() == folder.resolve()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


def test_only_a_large_log_is_moved_aside(tmp_path: Path) -> None:
    log, old = tmp_path / "x.log", tmp_path / "x.log.1"
    rotate(log, limit=10)
    log.write_text("0123456789")
    rotate(log, limit=10)
    assert log.exists()
    log.write_text("0123456789+")
    rotate(log, limit=10)
    assert not log.exists()
    assert old.read_text() == "0123456789+"


def test_a_private_file_is_readable_by_its_owner_only_and_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("an old key, world-readable")
    write_private(path, "secret")
    assert path.read_text() == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
