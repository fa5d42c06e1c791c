"""The two programs of securetune itself: the API under uvicorn, and the Celery worker.

Both run with the current Python interpreter. The API inherits a listening socket. So a taken port is reported before
anything starts, and requests wait during a restart of the API instead of failing.
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
"""Environment variable that marks the API, the worker and their child processes."""
_ANY = ("0.0.0.0", "::")  # noqa: S104 - only compared, not bound


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; port 0 chooses a free one.

    Raises:
        InvalidInput: code `unknown_host`; the host name has no address.
        Conflict: code `port_taken`; another program listens on the port.
        Unavailable: code `cannot_listen`; any other error.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError) as error:
        message = f"Cannot resolve {host}:{port}. Give --host an address of this machine, such as 127.0.0.1."
        raise InvalidInput(message, code="unknown_host", param="host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit the option. asyncio would set it, but not if uvicorn receives an open socket.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {port} on {host} is taken by another program. Choose another --port, or --port 0 for any.",
                code="port_taken",
                param="port",
            ) from error
        raise Unavailable(f"Cannot listen on {host}:{port}: {error.strerror}.", code="cannot_listen") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return a URL that a browser on this machine can open."""
    host, port = listener.getsockname()[:2]
    if host in _ANY:
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Api(Program):
    """The API, which serves a listening socket."""

    def __init__(self, listener: socket.socket, env: Mapping[str, str], log: Path) -> None:
        super().__init__("API", log)
        self._listener = listener
        self._env = env
        self._probe: socket.socket | None = None

    @override
    def command(self) -> Command:
        descriptor = self._listener.fileno()
        # The timeout limits how long open connections, such as event streams, can delay a stop.
        arguments = ["--factory", "--fd", str(descriptor), "--timeout-graceful-shutdown", "5"]
        return Command(
            [sys.executable, "-m", "uvicorn", "api.main:create_app", *arguments],
            env=self._env,
            keep_open=(descriptor,),
        )

    @override
    def ready(self) -> bool:
        """Whether `GET /healthz` has been answered. The request waits in the socket's queue until then."""
        try:
            if self._probe is None:
                self._probe = socket.create_connection(self._listener.getsockname()[:2], timeout=5)
                self._probe.setblocking(False)
                self._probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = self._probe.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            answer = b""
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        return answer.split(b" ")[1:2] == [b"200"]


class Worker(Program):
    """The Celery worker. It uses threads, because its tasks only supervise training processes."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        super().__init__("Worker", log)
        self._env = env

    @override
    def command(self) -> Command:
        # There are no other workers; searching for them takes a second.
        single = ["--without-mingle", "--without-gossip"]
        arguments = ["worker", "--pool", "threads", "--concurrency", "1", "--loglevel", "INFO", *single]
        return Command([sys.executable, "-m", "celery", "-A", "worker.main", *arguments], env=self._env)


def environment(state: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """Return the environment of the API and the worker: the current one, the URLs, the state folder and the marker."""
    return dict(os.environ) | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECURETUNE_STATE": str(state),
        "PYTHONUNBUFFERED": "1",
        MARKER: str(state),
    }


def end_strays(state: Path, pause: Pause, *, grace: float) -> None:
    """End the processes that an earlier `up` on this state, or one of its children, has left running.

    Raises:
        Unavailable: code `leftover_process`; a process cannot be ended.
    """

    def find() -> list[psutil.Process]:
        return living(lambda process: process.environ().get(MARKER) == str(state))

    for process in find():
        try_signal(process, signal.SIGTERM)
    end_leftovers(find, pause, grace=grace)
