"""`securetune up`: runs the whole service on one machine, under one supervisor.

    lock the state -> bind the port -> PostgreSQL, Valkey -> migrations, first key -> API, worker -> supervise -> stop

The state folder contains all persistent data: `postgres/`, `valkey/`, `artifacts/`, `logs/`, `api-key`, and `lock`,
which names the supervisor. If DATABASE_URL or REDIS_URL is set, that server is used and none is started. Not here: how
a program is started and stopped (securetune.local.processes), and which programs there are (securetune.local.servers,
securetune.local.services).
"""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from core.config import Settings
from core.errors import Conflict, NotAuthenticated, Unavailable
from securetune.local.address import Address
from securetune.local.paths import InUse, locked, rotate, short_path, write_private
from securetune.local.processes import Program, stop_together
from securetune.local.servers import PostgresServer, Server, ValkeyServer
from securetune.local.services import Api, Worker, end_strays, environment, listen, url_of
from securetune.local.signals import Signals, StopRequested
from securetune.local.supervisor import ShowLine, supervise


def up(settings: Settings, host: str, port: int, show: ShowLine, on_ready: Callable[[Address, bool], None]) -> None:
    """Run the service until the user requests a stop; call `on_ready` once, with true if the first key is new.

    The API listens on `host` and `port`; port 0 chooses a free one.

    Raises:
        Conflict: code `already_running` (the state is in use) or `port_taken`; nothing was started.
        Unavailable: a program does not start or keeps dying; everything was stopped.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        state, lock = _open_state(settings.state, stack)
        try:
            end_strays(state, signals.pause, grace=5.0)
            listener = stack.enter_context(listen(host, port))
            address = Address(address=url_of(listener), api_key_file=state / "api-key", state=state, pid=os.getpid())
            print(address.to_json(), file=lock, flush=True)
            run = _Run(state, settings, signals, show)
            stack.callback(run.stop)
            database_url, redis_url = run.start_servers()
            new_key = _prepare_database(address.api_key_file, database_url)
            env = environment(state, database_url, redis_url)
            api = Api(listener, env, run.log("api"))
            run.start(api)
            run.start(Worker(env, run.log("worker")))
            api.await_ready(signals.pause)
            on_ready(address, new_key)
            supervise(run.programs, signals, show)
        except StopRequested:
            return
        except OSError as error:
            raise _state_unusable(state, error) from error


def welcome(address: Address, new_key: bool) -> str:
    """Return the text that the user sees when the service is ready. A new key is shown once."""
    key = f"  API key             {address.api_key}\n" if new_key else ""
    return f"""
  securetune runs at  {address.address}   (documentation: {address.address}/docs)
{key}  API key stored in   {address.api_key_file}
  data and logs       {address.state}   ({address.state / "logs"})
  stop it with        Ctrl-C
"""


@contextmanager
def database(state: Path, settings: Settings) -> Generator[str]:
    """Yield the URL of the database: DATABASE_URL, or else the server that `securetune up` runs on this state.

    Raises:
        Unavailable: code `not_running`; no server runs on this state.
    """
    if url := settings.database_url.get_secret_value():
        yield url
        return
    data = PostgresServer(state / "postgres").data
    if not (data / PostgresServer.socket_name).is_socket():
        raise Unavailable(
            f"No database is running in {state}. Start it with `securetune up`, or set DATABASE_URL.",
            code="not_running",
        )
    with short_path(data, PostgresServer.socket_name) as folder:
        yield PostgresServer.url_format.format(folder)


@dataclass(frozen=True)
class _Run:
    """The programs of one `up`, in the order in which they were started."""

    state: Path
    settings: Settings
    signals: Signals
    show: ShowLine
    programs: list[Program] = field(default_factory=list)

    def log(self, name: str) -> Path:
        """Return the path of a program's log after rotating it."""
        folder = self.state / "logs"
        folder.mkdir(exist_ok=True)
        rotate(folder / f"{name}.log")
        return folder / f"{name}.log"

    def start_servers(self) -> tuple[str, str]:
        """Start the servers for which no URL is configured; return the URLs of the database and of the broker."""
        database_url = self.settings.database_url.get_secret_value()
        redis_url = self.settings.redis_url.get_secret_value()
        if not database_url:
            database_url = self._start_server(PostgresServer(self.state / "postgres", log=self.log("postgres")))
        if not redis_url:
            redis_url = self._start_server(ValkeyServer(self.state / "valkey", log=self.log("valkey")))
        return database_url, redis_url

    def _start_server(self, server: Server) -> str:
        self.start(server)
        server.await_ready(self.signals.pause)
        return server.url

    def start(self, program: Program) -> None:
        """Start a program without waiting until it is ready."""
        self.show(f"Starting {program.title}")
        self.programs.append(program)
        program.launch(self.signals.pause)

    def stop(self) -> None:
        """Stop the API and the worker together, then their leftovers, then the servers. A second Ctrl-C hurries."""
        self.show("Stopping. Press Ctrl-C again to hurry.")
        hurried = self.signals.watch_repeated_stop()
        servers = [program for program in self.programs if isinstance(program, Server)]
        others = [program for program in self.programs if not isinstance(program, Server)]
        alive = stop_together(others, self.signals.wait, hurried)
        try:
            end_strays(self.state, self.signals.wait, grace=3.0)
        finally:
            for server in reversed(servers):
                alive += stop_together([server], self.signals.wait, hurried)
                server.release()
        for program in alive:
            self.show(f"{program.title} (process {program.pid}) does not end.")
        self.show("Stopped." if not alive else "Stopped, except for the processes above.")


def _open_state(folder: Path, stack: ExitStack) -> tuple[Path, TextIO]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder.resolve(), stack.enter_context(locked(folder / "lock"))
    except InUse as error:
        if not error.note:
            message = f"Another securetune is starting or stopping on {folder}. Try again in a few seconds."
            raise Conflict(message, code=error.code) from error
        first = Address.model_validate_json(error.note)
        raise Conflict(
            f"securetune already runs on {folder}: {first.address}, process {first.pid}. Use it, or stop it first.",
            code=error.code,
        ) from error
    except OSError as error:
        raise _state_unusable(folder, error) from error


def _state_unusable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"{error.filename or folder} cannot be used: {error.strerror}. Choose another state folder with --state or "
        "SECURETUNE_STATE.",
        code="state_unusable",
    )


def _prepare_database(file: Path, database_url: str) -> bool:
    """Migrate the database, and create a key if `file` has no valid one. Return whether a key was created."""
    from core.db import keys, migrate  # noqa: PLC0415 - importing SQLAlchemy is slow
    from core.db.session import once  # noqa: PLC0415

    migrate.upgrade(database_url)
    with once(database_url) as session:
        try:
            keys.check(session, file.read_text().strip() if file.exists() else "")
        except NotAuthenticated:
            # The file is written before the commit: a file with an unknown key is harmless, a key without its secret
            # is useless.
            write_private(file, keys.create(session, "first") + "\n")
            return True
        return False
