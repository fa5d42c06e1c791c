"""The two programs of our own: the API under uvicorn, and the Celery worker.

Both are started through this interpreter. The API gets a socket that listens already: whether the port is free is known
before anything starts, and a client that calls while the API is started again waits instead of being refused.
Not here: the servers they need (securetune.local.servers).
"""

import errno
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
from typing_extensions import override

from core.errors import Conflict, InvalidInput, Unavailable
from securetune.local.processes import Command, Pause, Program, end_leftovers, living, try_signal

MARKER = "SECURETUNE_SUPERVISOR"
"""The variable by which processes that we started, and theirs, are found again."""
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes any free one.

    Raises:
        InvalidInput: code `unknown_host`, when the host has no address.
        Conflict: code `port_taken`.
        Unavailable: code `cannot_listen`, for any other reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError) as error:
        raise InvalidInput(f"{host}:{port} is no address to listen on.", code="unknown_host", param="host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sets this on each connection, but not when uvicorn has the socket from someone else; it is inherited.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {port} on {host} is taken by another program: choose another with --port, or --port 0 for any.",
                code="port_taken",
                param="port",
            ) from error
        raise Unavailable(f"Cannot listen on {host}:{port}: {error.strerror}.", code="cannot_listen") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The address that a browser on this machine can open."""
    host, port = listener.getsockname()[:2]
    if host in _ANY:
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Api(Program):
    """The API on a socket that listens already."""

    def __init__(self, listener: socket.socket, env: Mapping[str, str], log: Path) -> None:
        super().__init__("API", log)
        self._listener = listener
        self._env = env
        self._probe: socket.socket | None = None

    @override
    def command(self) -> Command:
        descriptor = self._listener.fileno()
        # The last: how long open connections, such as event streams, may delay a stop.
        arguments = ["--factory", "--fd", str(descriptor), "--timeout-graceful-shutdown", "5"]
        return Command(
            [sys.executable, "-m", "uvicorn", "api.main:create_app", *arguments],
            env=self._env,
            keep_open=(descriptor,),
        )

    @override
    def prepare(self, pause: Pause) -> None:
        """Forget a question that the last process left unanswered."""
        self._forget()

    @override
    def ready(self) -> bool:
        """It has answered `GET /healthz`. The question waits in the socket's queue until the API takes it."""
        try:
            if self._probe is None:
                host, port = url_of(self._listener).removeprefix("http://").rsplit(":", 1)
                self._probe = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
                self._probe.setblocking(False)
                self._probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = self._probe.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            answer = b""
        self._forget()
        return answer.split(b" ")[1:2] == [b"200"]

    def _forget(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


class Worker(Program):
    """The Celery worker. Its tasks only watch training processes, so threads do."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        super().__init__("Worker", log)
        self._env = env

    @override
    def command(self) -> Command:
        # It has no neighbours to look for, which would take a second.
        alone = ["--without-mingle", "--without-gossip"]
        arguments = ["worker", "--pool", "threads", "--concurrency", "1", "--loglevel", "INFO", *alone]
        return Command([sys.executable, "-m", "celery", "-A", "worker.main", *arguments], env=self._env)


def environment(state: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """What the API and the worker find in their environment: ours, where things are, and whose they are."""
    return dict(os.environ) | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECURETUNE_STATE": str(state),
        "PYTHONUNBUFFERED": "1",
        MARKER: str(state),
    }


def end_strays(state: Path, pause: Pause, *, grace: float) -> None:
    """End every process that an `up` on this state has started, directly or not, and that still runs.

    Raises:
        Unavailable: code `leftover_process`, when one cannot be ended.
    """

    def find() -> list[psutil.Process]:
        return living(lambda process: process.environ().get(MARKER) == str(state))

    for process in find():
        try_signal(process, signal.SIGTERM)
    end_leftovers(find, pause, grace=grace)
