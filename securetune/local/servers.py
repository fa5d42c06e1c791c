"""PostgreSQL and Valkey from wheels: start, stop, restart after a crash. They listen on Unix sockets only.

    with PostgresServer(folder) as database, ValkeyServer(other) as broker:
        connect(database.url, broker.url)

The working directory of each server is its data folder, and it binds its socket there. So no TCP port is opened, and
the path may have any length. A lock in the folder excludes a second supervisor; the owner of the lock may end the
processes that an earlier supervisor left running.

PostgreSQL refuses to run as root, so root runs it as another account (securetune.local.wheels). That account often
cannot traverse the path to the data folder, which may be below a private home directory. Therefore the server is
started *in* the folder and refers to it as `/proc/self/cwd`: the data stays in the state directory, and the modes of
other folders are not changed.

Not here: when to restart (securetune.local.supervisor), the schema (core.db.migrate).
"""

import errno
import os
import shutil
import signal
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Self

import psutil
from typing_extensions import override

from core.errors import Unavailable
from securetune.local import wheels
from securetune.local.paths import locked, short_path
from securetune.local.processes import (
    Account,
    Command,
    Pause,
    Program,
    end_leftovers,
    living,
    signal_group,
    spawn,
    stop_together,
    try_signal,
)

_WAL_SEGMENT_BYTES = 16 * 2**20


class Server(Program):
    """A server that stores its data in `folder/data`."""

    socket_name: ClassVar[str]
    url_format: ClassVar[str]
    """URL for clients; `{}` stands for the data folder or a link to it."""

    def __init__(self, title: str, folder: Path, log: Path | None) -> None:
        super().__init__(title, log or folder / "log")
        self.folder = folder
        self.data = folder / "data"
        self._claims = ExitStack()
        self._address: Path | None = None

    @property
    def url(self) -> str:
        """The URL for clients. A restart does not change it; only `release` does."""
        assert self._address is not None, f"{self.title} was not started"  # noqa: S101
        return self.url_format.format(self._address)

    def start(self, pause: Pause = time.sleep) -> str:
        """Start the server, wait until it accepts connections, and return its URL.

        Raises:
            InUse: another supervisor uses the folder.
            Unavailable: the server did not start; the code says why.
        """
        try:
            self.launch(pause)
            self.await_ready(pause)
        except BaseException:  # also if `pause` interrupts the wait
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server and release the folder."""
        stop_together([self])
        self.release()

    def release(self) -> None:
        """Release the lock on the folder; call it after the server has ended."""
        self._claims.close()
        self._address = None

    @override
    def prepare(self, pause: Pause) -> None:
        """Lock the folder on the first start; at every start, end leftover processes and create missing data."""
        try:
            if self._address is None:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._claims.enter_context(locked(self.folder / "lock"))
                self._address = self._claims.enter_context(short_path(self.data, self.socket_name))
            self.clean(pause)
            if not self.data.exists():
                self.create(pause)
        except OSError as error:
            code = "disk_full" if error.errno == errno.ENOSPC else "folder_unusable"
            path = error.filename or self.folder
            raise Unavailable(f"{self.title} cannot use {path}: {error.strerror}.", code=code) from error

    def clean(self, pause: Pause) -> None:
        """End the processes of an earlier run."""

    def create(self, pause: Pause) -> None:  # noqa: ARG002 - PostgreSQL waits for initdb
        """Create the data folder."""
        self.data.mkdir(mode=0o700)

    def leftovers(self, name: str) -> list[psutil.Process]:
        """Return running processes whose name starts with `name` and whose working directory is the data folder."""
        data = str(self.data.resolve())
        return living(lambda process: process.name().startswith(name) and process.cwd() == data)

    @override
    def diagnose(self, what: str) -> Unavailable:
        """Report a full disk as such. The log may be on the same disk, so its free space is checked as well."""
        full = "No space left on device" in self._written()
        if full or shutil.disk_usage(self.folder).free < _WAL_SEGMENT_BYTES:
            return Unavailable(f"{what}: no space left in {self.folder}. Free some.", code="disk_full")
        return super().diagnose(what)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class PostgresServer(Server):
    """PostgreSQL with the database `postgres`. Every client of the socket is the superuser `securetune`."""

    # Fast shutdown, then immediate shutdown without a checkpoint, then SIGKILL. The next start recovers the data.
    stop_signals = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 10.0))
    ready_within = 180.0  # recovery after a crash may replay a long log
    socket_name = ".s.PGSQL.5432"
    url_format = "postgresql://securetune@/postgres?host={}"

    def __init__(self, folder: Path, *, log: Path | None = None, durable: bool = True) -> None:
        """With `durable=False` (for tests) it is faster, but a power failure may lose the data."""
        super().__init__("PostgreSQL", folder, log)
        self._durable = durable
        self._account: Account | None = None
        self._programs: Path | None = None

    @override
    def clean(self, pause: Pause) -> None:
        """End a postmaster whose supervisor was killed, wait for its children, and remove its `postmaster.pid`.

        With a stale `postmaster.pid`, PostgreSQL refuses to start if another process has that process id now.
        """
        self._account = wheels.postgres_account(self.data)
        self._programs, major = wheels.postgres_programs(self._account)
        stamp = self.data / "PG_VERSION"
        found = stamp.read_text().strip() if stamp.exists() else "(none)"
        if self.data.exists() and found != str(major):
            raise Unavailable(
                f"{self.data} was created by PostgreSQL {found}, but the installed version is {major}. Export the data "
                "with pg_dump of the old version, or move the folder away to start with an empty database.",
                code="data_version",
            )
        for scratch in self.folder.glob("init-*"):
            shutil.rmtree(scratch)
        claim = self.data / "postmaster.pid"
        pid = claim.read_text().split("\n", 1)[0] if claim.exists() else ""
        for process in self.leftovers("postgres"):
            if str(process.pid) == pid:
                try_signal(process, signal.SIGINT)
        end_leftovers(lambda: self.leftovers("postgres"), pause, grace=10)
        claim.unlink(missing_ok=True)  # no process uses the folder any more, and we own its lock

    @override
    def create(self, pause: Pause) -> None:
        """Create a cluster in a temporary folder and rename it once it is complete."""
        scratch = Path(tempfile.mkdtemp(prefix="init-", dir=self.folder))
        if self._account:
            os.chown(scratch, self._account.uid, self._account.gid)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        arguments = ["--username=securetune", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        arguments += [] if self._durable else ["--no-sync"]
        initdb = spawn(self._in_folder("initdb", arguments, scratch), self.log, death_signal=signal.SIGKILL)
        try:
            while (status := initdb.poll()) is None:
                pause(0.01)
            if status != 0:
                raise self.diagnose("The data folder of PostgreSQL cannot be created")
            scratch.rename(self.data)
        finally:
            if initdb.poll() is None:
                signal_group(initdb.pid, signal.SIGKILL)
                initdb.wait()
            shutil.rmtree(scratch, ignore_errors=True)  # it does not exist after the rename

    @override
    def command(self) -> Command:
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": ".",
            "unix_socket_permissions": "0700",
            "logging_collector": "off",
            "cluster_name": "securetune",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}  # a killed server still loses nothing
        return self._in_folder("postgres", [f"--{name}={value}" for name, value in settings.items()], self.data)

    def _in_folder(self, program: str, arguments: list[str], folder: Path) -> Command:
        assert self._programs is not None  # noqa: S101 - set by `clean`
        here = "/proc/self/cwd" if self._account else "."
        env = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}  # no PG* variables
        return Command(
            argv=[self._programs / "bin" / program, "-D", here, *arguments],
            env=env | {"LC_ALL": "C"},
            cwd=folder,
            account=self._account,
        )

    @override
    def ready(self) -> bool:
        """Whether `postmaster.pid` reports `ready` in its eighth line, which is how pg_ctl waits."""
        claim = self.data / "postmaster.pid"
        lines = claim.read_text().splitlines() if claim.exists() else []
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


class ValkeyServer(Server):
    """Valkey as the broker. Messages only wake workers up, and the periodic sweep resends those lost in a crash."""

    stop_signals = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0))
    socket_name = "valkey.sock"
    url_format = f"redis+socket://{{}}/{socket_name}"

    def __init__(self, folder: Path, *, log: Path | None = None) -> None:
        super().__init__("Valkey", folder, log)

    @override
    def clean(self, pause: Pause) -> None:
        """End a Valkey server whose supervisor was killed."""
        for process in self.leftovers("valkey"):
            try_signal(process, signal.SIGTERM)
        end_leftovers(lambda: self.leftovers("valkey"), pause, grace=5)

    @override
    def command(self) -> Command:
        settings = {
            "port": "0",
            "unixsocket": self.socket_name,
            "unixsocketperm": "700",
            "dir": ".",
            "save": "300 1",
            "appendonly": "no",
            # A full disk must neither stop the broker nor block its shutdown.
            "stop-writes-on-bgsave-error": "no",
            "shutdown-on-sigterm": "force",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", *value.split())]
        return Command([wheels.valkey_server(), *arguments], cwd=self.data)

    @override
    def ready(self) -> bool:
        """Whether it responds to PING."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(f"{self._address}/{self.socket_name}")
                client.sendall(b"PING\r\n")
                return client.recv(5) == b"+PONG"
            except OSError:
                return False
