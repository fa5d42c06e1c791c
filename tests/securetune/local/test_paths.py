"""securetune.local.paths: what two processes do with one lock, and how a long path becomes a short one."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from securetune.local.paths import Held, locked, rotate, short_path, write_private

HOLD = """
import sys
from pathlib import Path
from securetune.local.paths import locked
with locked(Path(sys.argv[1])) as file:
    print("the holder's note", file=file, flush=True)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Held) as refused, locked(path):
            pass
        assert refused.value.note == "the holder's note\n"
        assert refused.value.code == "already_running"
        holder.kill()
        holder.wait()
        with locked(path):
            assert path.read_text() == ""


def test_a_short_path_is_used_as_it_is(tmp_path: Path) -> None:
    with short_path(Path("/run/x"), "socket") as path:
        assert path == Path("/run/x").resolve()


@pytest.mark.parametrize("name", ["n" * 120, "with space", "ümlaut", "per%cent"])
def test_a_long_or_odd_path_gets_a_private_link(tmp_path: Path, name: str) -> None:
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


def test_a_private_file_is_readable_by_its_owner_only_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("an old one, world-readable")
    write_private(path, "secret")
    assert path.read_text() == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
