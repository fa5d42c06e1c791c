"""`securetune up`: everything on one machine, under one supervisor, from an empty folder to a clean end.

    lock the state -> take the port -> PostgreSQL, Valkey -> migrations, first key -> API, worker -> supervise -> stop

The state directory holds all that lasts: `postgres/`, `valkey/`, `artifacts/`, `logs/`, `api-key`, and `lock`, which
says who uses it. DATABASE_URL and REDIS_URL, when set, win: then that server is not started. Not here: how a program is
started and stopped (securetune.local.processes), what each is (securetune.local.servers, securetune.local.services).
"""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from core.config import Settings
from core.errors import Conflict, NotAuthenticated, Unavailable
from securetune.local.address import Address
from securetune.local.paths import Held, locked, rotate, short_path, write_private
from securetune.local.processes import Program, stop_together
from securetune.local.servers import PostgresServer, Server, ValkeyServer
from securetune.local.services import Api, Worker, end_strays, environment, listen, url_of
from securetune.local.signals import Signals, StopRequested
from securetune.local.supervisor import Say, supervise


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes any free port."""


def up(options: Options, settings: Settings, say: Say, ready: Callable[[Address, bool], None]) -> None:
    """Run the service until the user asks it to end; `ready` is called once, with whether the first key is new.

    Raises:
        Conflict: code `already_running` (this state is in use) or `port_taken`; nothing was started.
        Unavailable: something does not start, or does not stay up; everything was stopped.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        state, lock = _open_state(options.state, stack)
        try:
            end_strays(state, signals.pause, grace=5.0)
            listener = stack.enter_context(listen(options.host, options.port))
            address = Address(url_of(listener), state / "api-key", state, os.getpid())
            print(address.to_json(), file=lock, flush=True)
            run = _Run(address, settings, signals, say)
            stack.callback(run.stop)
            database_url, redis_url = run.servers()
            new_key = _first_key(address.api_key_file, database_url)
            env = environment(state, database_url, redis_url)
            api = Api(listener, env, run.log("api"))
            run.start(api)
            run.start(Worker(env, run.log("worker")))
            api.await_ready(signals.pause)
            ready(address, new_key)
            supervise(run.programs, signals, say)
        except StopRequested:
            return
        except OSError as error:
            raise _unusable(state, error) from error


def welcome(address: Address, new_key: bool) -> str:
    """What the user reads when everything runs. The key itself is shown once, when it is new."""
    key = f"  API key             {address.api_key}"
    return "\n".join(
        [
            "",
            f"  securetune runs at  {address.address}   (documentation: {address.address}/docs)",
            *([key] if new_key else []),
            f"  API key kept in     {address.api_key_file}",
            f"  data and logs       {address.state}   ({address.state / 'logs'})",
            "  stop it with        Ctrl-C",
            "",
        ]
    )


@contextmanager
def database(state: Path, settings: Settings) -> Generator[str]:
    """The address of the database: what DATABASE_URL says, or else the one that an `up` on this state runs.

    Raises:
        Unavailable: code `not_running`, when there is none.
    """
    if url := settings.database_url.get_secret_value():
        yield url
        return
    data = PostgresServer(state / "postgres").data
    if not (data / PostgresServer.socket_name).is_socket():
        raise Unavailable(
            f"No database runs on {state}: start it with `securetune up`, or set DATABASE_URL.", code="not_running"
        )
    with short_path(data, PostgresServer.socket_name) as folder:
        yield PostgresServer.url_in(folder)


class _Run:
    """The programs started so far, in the order in which they were."""

    def __init__(self, address: Address, settings: Settings, signals: Signals, say: Say) -> None:
        self.programs: list[Program] = []
        self._state = address.state
        self._settings = settings
        self._signals = signals
        self._say = say

    def log(self, name: str) -> Path:
        """The log of a program, made smaller when it has grown too large."""
        folder = self._state / "logs"
        folder.mkdir(exist_ok=True)
        rotate(folder / f"{name}.log")
        return folder / f"{name}.log"

    def servers(self) -> tuple[str, str]:
        """The addresses of PostgreSQL and the broker, started when the user has named none."""
        database_url = self._settings.database_url.get_secret_value()
        redis_url = self._settings.redis_url.get_secret_value()
        if not database_url:
            database_url = self._serve(PostgresServer(self._state / "postgres", log=self.log("postgres")))
        if not redis_url:
            redis_url = self._serve(ValkeyServer(self._state / "valkey", log=self.log("valkey")))
        return database_url, redis_url

    def _serve(self, server: Server) -> str:
        self.programs.append(server)
        self._say(f"Starting: {server.title}")
        return server.start(self._signals.pause)

    def start(self, program: Program) -> None:
        """Start a program of ours, without waiting for it."""
        self._say(f"Starting: {program.title}")
        self.programs.append(program)
        program.launch(self._signals.pause)

    def stop(self) -> None:
        """Stop our own programs together, then what they have left, then the servers; a second Ctrl-C hurries."""
        self._say("Stopping; Ctrl-C again hurries")
        hurried = self._signals.hurry()
        servers = [program for program in self.programs if isinstance(program, Server)]
        others = [program for program in self.programs if not isinstance(program, Server)]
        refused = stop_together(others, self._signals.wait, hurried)
        try:
            end_strays(self._state, self._signals.wait, grace=3.0)
        finally:
            for server in reversed(servers):
                refused += stop_together([server], self._signals.wait, hurried)
                server.release()
        for program in refused:
            self._say(f"{program.title} (process {program.pid}) does not end.")
        self._say("Stopped." if not refused else "Stopped, but for the above.")


def _open_state(folder: Path, stack: ExitStack) -> tuple[Path, TextIO]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder.resolve(), stack.enter_context(locked(folder / "lock"))
    except Held as held:
        if not held.note:
            raise Conflict(f"securetune is just starting or ending on {folder}.", code=held.code) from held
        first = Address.from_json(held.note)
        raise Conflict(
            f"securetune runs on {folder} already: {first.address}, process {first.pid}. It was left alone.",
            code=held.code,
        ) from held
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"{error.filename or folder} cannot be used: {error.strerror}. The state directory is chosen with --state or "
        "SECURETUNE_STATE.",
        code="state_unusable",
    )


def _first_key(file: Path, database_url: str) -> bool:
    """Bring the database up to date, and see to it that the file holds a key that is valid in it. True: a new one."""
    from core.db import keys, migrate  # noqa: PLC0415 - SQLAlchemy takes a while to import
    from core.db.session import once  # noqa: PLC0415

    migrate.upgrade(database_url)
    with once(database_url) as session:
        try:
            keys.check(session, file.read_text().strip() if file.exists() else "")
        except NotAuthenticated:
            # Before the commit: a key whose secret got lost would be worse than a file without a key.
            write_private(file, keys.create(session, "first") + "\n")
            return True
        return False
