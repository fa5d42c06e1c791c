"""securetune.local.services: listening sockets and the environment of the API and the worker.

Not here: the running programs (test_up.py).
"""

import socket
from pathlib import Path

import pytest

from core.errors import Conflict, InvalidInput, Unavailable
from securetune.local.services import environment, listen, url_of


def test_a_free_port_is_found_and_then_taken() -> None:
    with listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(Conflict, match=f"Port {port} on {host} is taken") as taken:
            listen(host, port)
        assert taken.value.code == "port_taken"


def test_connections_wait_until_a_program_accepts_them() -> None:
    with listen("localhost", 0) as listener, socket.create_connection(listener.getsockname()[:2], timeout=5) as client:
        client.sendall(b"hello")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(5) == b"hello"
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_wildcard_address_is_shown_as_the_loopback_address() -> None:
    with listen("0.0.0.0", 0) as listener:  # noqa: S104
        assert url_of(listener).startswith("http://127.0.0.1:")


def test_a_host_without_an_address_is_an_error() -> None:
    with pytest.raises(InvalidInput) as unknown:
        listen("not a host", 0)
    assert unknown.value.code == "unknown_host"


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(Unavailable, match="Cannot listen on") as foreign:
        listen("192.0.2.1", 0)
    assert foreign.value.code == "cannot_listen"


def test_the_environment_has_the_urls_and_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURETUNE_THREADS", "2")
    monkeypatch.setenv("DATABASE_URL", "")
    env = environment(Path("/s"), "postgresql://d", "redis://r")
    assert env["SECURETUNE_THREADS"] == "2"
    assert (env["DATABASE_URL"], env["REDIS_URL"], env["SECURETUNE_STATE"]) == ("postgresql://d", "redis://r", "/s")
