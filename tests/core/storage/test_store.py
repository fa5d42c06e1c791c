"""The artifact store: whole files or none, whatever happens in between."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from core.errors import NotFound, StorageFull
from core.schemas.results import StoredFile
from core.storage import ArtifactStore
from core.storage.store import digest, room


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def files(store: ArtifactStore) -> list[str]:
    """Everything below the store's folder."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def test_what_is_put_is_there(store: ArtifactStore) -> None:
    stored = store.put("jobs/a/1/report.json", b"{}", name="report.json", media_type="application/json", gated=False)
    assert stored == StoredFile(
        name="report.json",
        key="jobs/a/1/report.json",
        sha256=sha256(b"{}").hexdigest(),
        bytes=2,
        media_type="application/json",
        gated=False,
    )
    path = store.path(stored.key)
    assert path.read_bytes() == b"{}"
    assert digest(path) == stored.sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert store.has(stored.key)
    assert files(store) == ["jobs/a/1/report.json"]


def test_a_file_put_again_is_replaced_and_its_reader_keeps_the_old(store: ArtifactStore) -> None:
    store.put("a", b"old", name="a", media_type="text/plain", gated=False)
    with store.path("a").open("rb") as reader:
        store.put("a", b"new", name="a", media_type="text/plain", gated=False)
        assert reader.read() == b"old"
    assert store.path("a").read_bytes() == b"new"


def test_staging_is_gone_afterwards_also_after_an_error(store: ArtifactStore) -> None:
    def fail_halfway() -> None:
        with store.staging() as folder:
            (folder / "half").write_bytes(b"half")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert files(store) == []


def test_a_full_disk_stores_nothing(store: ArtifactStore, no_room: None) -> None:
    store.put("small", b"x", name="small", media_type="text/plain", gated=False)
    with pytest.raises(StorageFull) as caught:
        store.put("large", b"x" * 100_000, name="large", media_type="text/plain", gated=False)
    assert caught.value.code == "storage_full"
    assert files(store) == ["small"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_device_without_room_is_a_full_disk() -> None:
    with pytest.raises(StorageFull), room():
        Path("/dev/full").write_bytes(b"x")


def test_other_errors_of_the_system_keep_their_names() -> None:
    with pytest.raises(PermissionError), room():
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a/..", ".hidden", "a/.hidden", "a//b", "a/", "a b", "a\n", "a\x00b"]
)
def test_a_key_never_leads_out(store: ArtifactStore, key: str) -> None:
    for use in (store.path, store.has):
        with pytest.raises(ValueError, match="is not a valid key"):
            use(key)


def test_what_is_not_there_is_said_so(store: ArtifactStore) -> None:
    store.put("jobs/a/file", b"", name="file", media_type="text/plain", gated=False)
    for key in ("jobs/b/file", "jobs/a"):
        assert not store.has(key)
        with pytest.raises(NotFound) as caught:
            store.path(key)
        assert caught.value.code == "artifact_missing"


def test_a_killed_writer_leaves_no_file_and_is_cleaned_up_a_day_later(store: ArtifactStore) -> None:
    program = f"""
import os, pathlib, signal
from core.storage import ArtifactStore
with ArtifactStore(pathlib.Path({str(store.root)!r})).staging() as folder:
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False)
    (left,) = (store.root / "staging").iterdir()
    store.clean()
    assert left.exists()
    yesterday = time.time() - 25 * 3600
    os.utime(left, (yesterday, yesterday))
    store.clean()
    assert not left.exists()


def test_a_removed_file_is_gone_and_removing_it_again_does_nothing(store: ArtifactStore) -> None:
    store.put("a/b", b"x", name="b", media_type="text/plain", gated=False)
    store.remove("a/b")
    store.remove("a/b")
    assert not store.has("a/b")
    with pytest.raises(ValueError, match="is not a valid key"):
        store.remove("../a")


def test_a_forgotten_checkpoint_is_cleaned_up_a_week_later(store: ArtifactStore) -> None:
    kept = ["jobs/a/checkpoints/new", "jobs/a/stages/old"]
    for key in (*kept, "jobs/a/checkpoints/old"):
        store.put(key, b"x", name="x", media_type="text/plain", gated=False)
        age = 8 if key.endswith("old") else 6
        then = time.time() - age * 24 * 3600
        os.utime(store.path(key), (then, then))
    store.clean()
    assert not store.has("jobs/a/checkpoints/old")
    assert all(store.has(key) for key in kept)


def test_a_store_that_was_never_used_can_be_cleaned(store: ArtifactStore) -> None:
    store.clean()
    shutil.rmtree(store.root, ignore_errors=True)
    store.clean()
