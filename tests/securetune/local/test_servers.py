"""securetune.local.servers: real PostgreSQL and Valkey servers are started, stopped, killed and restarted."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from core.errors import Unavailable
from securetune.local.paths import InUse
from securetune.local.servers import PostgresServer, Server, ValkeyServer


def postgres(folder: Path) -> PostgresServer:
    return PostgresServer(folder, durable=False)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Folder of a stopped PostgreSQL with one table. Tests leave it stopped, because a new cluster takes a second."""
    with tempfile.TemporaryDirectory(prefix="securetune-test-") as private:
        folder = Path(private, "postgres")
        with postgres(folder) as server, psycopg.connect(server.url, autocommit=True) as session:
            session.execute("CREATE TABLE stored AS SELECT 42 AS answer")
        yield folder


def answer(server: PostgresServer) -> object:
    with psycopg.connect(server.url) as session:
        row = session.execute("SELECT answer FROM stored").fetchone()
        return row and row[0]


def families(process: psutil.Process) -> set[str]:
    """Address families of its sockets; a set, because the connection of the readiness check may still be open."""
    return {connection.family.name for connection in process.net_connections(kind="all")}


def kill(server: Server) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_postgres_keeps_its_data_and_leaves_no_process(folder: Path) -> None:
    server = postgres(folder)
    assert server.start() == server.url
    assert answer(server) == 42
    pid = server.pid
    assert pid is not None
    family = psutil.Process(pid).children(recursive=True)
    assert family
    server.stop()
    assert server.pid is None
    assert server.poll() == 0
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert server.leftovers("postgres") == []
    with postgres(folder) as again:
        assert answer(again) == 42


def test_postgres_refuses_tcp_and_other_users(folder: Path) -> None:
    with postgres(folder) as server:
        assert server.pid is not None
        process = psutil.Process(server.pid)
        assert families(process) == {"AF_UNIX"}
        assert process.uids().effective != 0
        assert (folder / "data").stat().st_mode & 0o777 == 0o700
        assert (folder / "data").stat().st_uid == process.uids().effective


def test_postgres_starts_after_it_was_killed(folder: Path) -> None:
    with postgres(folder) as server:
        with psycopg.connect(server.url, autocommit=True) as session:
            session.execute("CREATE TABLE late AS SELECT 43 AS answer")
        kill(server)
        url = server.url
        assert server.start() == url
        with psycopg.connect(server.url, autocommit=True) as session:
            assert session.execute("SELECT answer FROM late").fetchone() == (43,)
            session.execute("DROP TABLE late")


def test_postgres_starts_despite_a_stale_pid_that_another_process_has_now(folder: Path) -> None:
    owner = (folder / "data").stat()
    stale = folder / "data" / "postmaster.pid"
    other = subprocess.Popen(["sleep", "1000"], user=owner.st_uid if os.geteuid() == 0 else None)
    try:
        stale.write_text(f"{other.pid}\n/proc/self/cwd\n1700000000\n5432\n.\n\n  1234567   1\nready   \n")
        os.chown(stale, owner.st_uid, owner.st_gid)
        with postgres(folder) as server:
            assert answer(server) == 42
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_postgres_of_a_killed_supervisor_is_ended_first(folder: Path) -> None:
    lost = postgres(folder)
    lost.start()
    assert lost.pid is not None
    old = psutil.Process(lost.pid)
    lost.release()  # the kernel does so when the supervisor dies
    with postgres(folder) as server:
        assert server.pid != old.pid
        assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
        assert answer(server) == 42
    assert lost.poll() == 0  # a fast shutdown, not a kill


def test_the_data_of_another_postgres_version_is_not_touched(folder: Path) -> None:
    stamp = folder / "data" / "PG_VERSION"
    version = stamp.read_text()
    stamp.write_text("9.6\n")
    try:
        message = r"created by PostgreSQL 9\.6, but the installed version is \d+\. Export the data .* or move"
        with pytest.raises(Unavailable, match=message) as refused:
            postgres(folder).start()
    finally:
        stamp.write_text(version)
    assert refused.value.code == "data_version"
    with postgres(folder) as server:
        assert answer(server) == 42


def test_an_incomplete_data_folder_is_created_again(tmp_path: Path) -> None:
    """initdb is interrupted by the user, and by a kill after which nothing was cleaned up."""
    folder = tmp_path / "postgres"

    def interrupt(seconds: float) -> None:
        if list(folder.glob("init-*/base")):
            raise InterruptedError

    with pytest.raises(Unavailable):
        postgres(folder).start(interrupt)
    assert not (folder / "data").exists()
    (folder / "init-killed" / "base").mkdir(parents=True)
    with postgres(folder) as server, psycopg.connect(server.url) as session:
        assert session.execute("SHOW server_encoding").fetchone() == ("UTF8",)
    assert {path.name for path in folder.iterdir()} == {"data", "lock", "log"}


def test_the_error_of_a_failed_postgres_start_has_the_reason(folder: Path) -> None:
    configuration = folder / "data" / "postgresql.conf"
    before = configuration.read_text()
    configuration.write_text(before + "\nno_such_setting = 1\n")
    server = postgres(folder)
    try:
        with pytest.raises(Unavailable, match="no_such_setting") as failed:
            server.start()
    finally:
        configuration.write_text(before)
    assert failed.value.code == "start_failed"
    assert str(server.log) in failed.value.message
    server.start()  # the folder was released
    server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root may mount")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    return disk


def test_postgres_reports_a_full_disk(small_disk: Path) -> None:
    try:
        with pytest.raises(Unavailable, match="space") as full:
            postgres(small_disk / "postgres").start()
        assert full.value.code == "disk_full"
        assert not (small_disk / "postgres" / "data").exists()
    finally:
        subprocess.run(["umount", small_disk], check=True)


def test_valkey_keeps_its_data_and_leaves_no_process(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "valkey") as server:
        scheme, _, path = server.url.partition("://")
        assert scheme == "redis+socket"
        assert (
            Path(path).resolve() == tmp_path.resolve() / "valkey" / "data" / "valkey.sock"
        )  # or a link, see short_path
        assert server.pid is not None
        assert families(psutil.Process(server.pid)) == {"AF_UNIX"}
        with redis.Redis(unix_socket_path=path) as client:
            client.set("answer", 42)
    assert server.poll() == 0
    with (
        ValkeyServer(tmp_path / "valkey") as again,
        redis.Redis(unix_socket_path=again.url.removeprefix("redis+socket://")) as client,
    ):
        assert client.get("answer") == b"42"


def test_valkey_starts_after_it_was_killed(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "valkey") as server:
        kill(server)
        server.start()
        assert server.ready()


def test_the_valkey_of_a_killed_supervisor_is_ended_first(tmp_path: Path) -> None:
    lost = ValkeyServer(tmp_path / "valkey")
    lost.start()
    lost.release()
    with ValkeyServer(tmp_path / "valkey") as server:
        assert server.ready()
        assert lost.poll() == 0


@pytest.mark.parametrize("name", ["n" * 120, "a b%c"])
def test_servers_work_in_folders_with_long_or_unusual_paths(tmp_path: Path, folder: Path, name: str) -> None:
    moved = folder.rename(folder.with_name(name))
    try:
        with postgres(moved) as database, ValkeyServer(tmp_path / name) as broker:
            assert answer(database) == 42
            assert broker.ready()
    finally:
        moved.rename(folder)


@pytest.mark.parametrize("make", [postgres, ValkeyServer])
def test_a_second_server_on_a_folder_is_an_error(
    make: Callable[[Path], Server], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue("folder") if make is postgres else tmp_path / "valkey"
    with make(place) as server:
        pid = server.pid
        with pytest.raises(InUse):
            make(place).start()
        assert server.pid == pid
        assert server.ready()
