"""PostgreSQL and Valkey from wheels, under a folder of ours: start, stop, start again after a crash. Unix sockets only.

    with PostgresServer(folder) as database, ValkeyServer(other) as broker:
        connect(database.url, broker.url)

Each server works in its data folder and binds its socket there, so no TCP port is opened and the length of the path
does not matter. A lock in the folder keeps two supervisors apart; whoever holds it may end what an earlier one left.

PostgreSQL refuses to run as root. Then it runs as the owner of the data folder, which is `nobody` in a new one. That
account need not be able to walk to the folder, which often lies below a private home: the server is started *in* the
folder and finds it again as `/proc/self/cwd`. So the data stays in the state directory, and no mode is changed on any
folder that is not ours. The programs must be within its reach, see securetune.local.wheels.

Not here: when to start again (securetune.local.supervisor), the schema (core.db.migrate).
"""

import errno
import os
import pwd
import shutil
import signal
import socket
import tempfile
import time
from abc import abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
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
    """A server that keeps its data in `folder`."""

    socket_name: ClassVar[str]

    def __init__(self, title: str, folder: Path, log: Path | None) -> None:
        super().__init__(title, log or folder / "log")
        self.folder = folder
        self.data = folder / "data"
        self._held = ExitStack()
        self._address: Path | None = None

    @property
    def url(self) -> str:
        """Where clients find it. Stays the same for as long as the server is held, also when it is started again."""
        assert self._address is not None, f"{self.title} was not started"  # noqa: S101
        return self.url_in(self._address)

    @staticmethod
    @abstractmethod
    def url_in(folder: Path) -> str:
        """Where clients find a server whose data folder, or a link to it, this is."""

    def start(self, pause: Pause = time.sleep) -> str:
        """Start it and wait until it takes connections; returns its address.

        Raises:
            Held: another supervisor has it.
            Unavailable: it does not start; the code says why.
        """
        try:
            self.launch(pause)
            self.await_ready(pause)
        except BaseException:  # also when `pause` breaks the wait off
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End it, and let go of the folder."""
        stop_together([self])
        self.release()

    def release(self) -> None:
        """Let go of the folder, once it has ended."""
        self._held.close()
        self._address = None

    @override
    def prepare(self, pause: Pause) -> None:
        """Take the folder, once, and end what an earlier run left in it."""
        try:
            if self._address is None:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._held.enter_context(locked(self.folder / "lock"))
                self._address = self._held.enter_context(short_path(self.data, self.socket_name))
            self.clean(pause)
            if not self.data.exists():
                self.create(pause)
        except OSError as error:
            code = "disk_full" if error.errno == errno.ENOSPC else "folder_unusable"
            where = error.filename or self.folder
            raise Unavailable(f"{self.title} cannot use {where}: {error.strerror}.", code=code) from error

    def clean(self, pause: Pause) -> None:
        """End what an earlier run left behind."""

    def create(self, pause: Pause) -> None:  # noqa: ARG002 - PostgreSQL's takes a while
        """Make the data folder."""
        self.data.mkdir(mode=0o700)

    def leftovers(self, name: str) -> list[psutil.Process]:
        """Living processes of this name that work in the data folder."""
        data = str(self.data.resolve())
        return living(lambda process: process.name().startswith(name) and process.cwd() == data)

    @override
    def diagnose(self, what: str) -> Unavailable:
        """A full disk says so in a log on the same disk, so ask the disk as well."""
        full = "No space left on device" in self._written()
        if full or shutil.disk_usage(self.folder).free < _WAL_SEGMENT_BYTES:
            return Unavailable(f"{what}: there is no room left below {self.folder}. Free some.", code="disk_full")
        return super().diagnose(what)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class PostgresServer(Server):
    """PostgreSQL: one superuser `securetune`, who is whoever reaches the socket, and the database `postgres`."""

    # Fast shutdown; then without a checkpoint, which the next start makes up for; SIGKILL would do no more harm.
    stop_signals = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 10.0))
    ready_within = 180.0  # recovery after a crash may have much to read
    socket_name = ".s.PGSQL.5432"

    def __init__(self, folder: Path, *, log: Path | None = None, durable: bool = True) -> None:
        """`durable=False` is for tests: quicker, and a power cut may lose the data."""
        super().__init__("PostgreSQL", folder, log)
        self._durable = durable
        self._account: Account | None = None
        self._programs: wheels.PostgresPrograms | None = None

    @staticmethod
    @override
    def url_in(folder: Path) -> str:
        return f"postgresql://securetune@/postgres?host={folder}"

    def _check_version(self, major: int) -> None:
        stamp = self.data / "PG_VERSION"
        found = stamp.read_text().strip() if stamp.exists() else "(none)"
        if found != str(major):
            raise Unavailable(
                f"{self.data} was made by PostgreSQL {found}, and this is PostgreSQL {major}: move the folder away to "
                "start afresh, or bring its data over with pg_dump of the old version.",
                code="data_version",
            )

    @override
    def clean(self, pause: Pause) -> None:
        """End a postmaster whose supervisor was killed, wait for its children, and remove its claim on the folder.

        PostgreSQL itself refuses to start when the process id in a stale claim has been given to another process.
        """
        self._account = database_account(self.data)
        self._programs = wheels.postgres_programs(self._account)
        if self.data.exists():
            self._check_version(self._programs.major)
        for scratch in self.folder.glob("init-*"):
            shutil.rmtree(scratch)
        claim = self.data / "postmaster.pid"
        pid = claim.read_text().split("\n", 1)[0] if claim.exists() else ""
        for process in self.leftovers("postgres"):
            if str(process.pid) == pid:
                try_signal(process, signal.SIGINT)
        end_leftovers(lambda: self.leftovers("postgres"), pause, grace=10)
        claim.unlink(missing_ok=True)  # nobody works in the folder any more, and we hold its lock

    @override
    def create(self, pause: Pause) -> None:
        """Make a new cluster beside the data folder, and rename it when it is whole."""
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
                raise self.diagnose("PostgreSQL's data folder cannot be made")
            scratch.rename(self.data)
        finally:
            if initdb.poll() is None:
                signal_group(initdb.pid, signal.SIGKILL)
                initdb.wait()
            shutil.rmtree(scratch, ignore_errors=True)  # there is none after the rename

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
            settings |= {"fsync": "off", "full_page_writes": "off"}  # a killed server loses nothing even so
        return self._in_folder("postgres", [f"--{name}={value}" for name, value in settings.items()], self.data)

    def _in_folder(self, program: str, arguments: list[str], folder: Path) -> Command:
        assert self._programs is not None  # noqa: S101 - `clean` comes first
        here = "/proc/self/cwd" if self._account else "."
        env = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}  # and none of PG*
        return Command(
            argv=[self._programs.folder / "bin" / program, "-D", here, *arguments],
            env=env | {"LC_ALL": "C"},
            cwd=folder,
            account=self._account,
        )

    @override
    def ready(self) -> bool:
        """Its claim on the folder has a line that says so, as pg_ctl reads it."""
        claim = self.data / "postmaster.pid"
        lines = claim.read_text().splitlines() if claim.exists() else []
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def database_account(data: Path) -> Account | None:
    """Who PostgreSQL must run as: None for ourselves, or some other account when we are root.

    Raises:
        Unavailable: code `root_unsupported`, when there is no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise Unavailable(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it as: run securetune as an "
            "ordinary user, or set DATABASE_URL.",
            code="root_unsupported",
        ) from error
    return Account(nobody.pw_uid, nobody.pw_gid)


class ValkeyServer(Server):
    """Valkey, as a broker: it carries wake-ups, so what a crash loses is sent again by the sweep."""

    stop_signals = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0))
    socket_name = "valkey.sock"

    def __init__(self, folder: Path, *, log: Path | None = None) -> None:
        super().__init__("Valkey", folder, log)

    @staticmethod
    @override
    def url_in(folder: Path) -> str:
        return f"redis+socket://{folder}/{ValkeyServer.socket_name}"

    @override
    def clean(self, pause: Pause) -> None:
        """End a server whose supervisor was killed."""
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
            # A full disk must stop neither the broker nor its end.
            "stop-writes-on-bgsave-error": "no",
            "shutdown-on-sigterm": "force",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", *value.split())]
        return Command([wheels.valkey_server(), *arguments], cwd=self.data)

    @override
    def ready(self) -> bool:
        """It answers a ping."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(f"{self._address}/{self.socket_name}")
                client.sendall(b"PING\r\n")
                return client.recv(5) == b"+PONG"
            except OSError:
                return False
