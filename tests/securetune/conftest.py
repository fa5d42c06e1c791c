"""The app on a real socket, in a thread of the test process, so that tests can change the state of jobs directly."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Thread

import pytest
import uvicorn
from fastapi.testclient import TestClient

from api.main import create_app
from core.db import keys
from core.db.session import transaction
from securetune import SecureTune
from tests.api.conftest import Service, settings_for


@dataclass(frozen=True)
class Served:
    """URL and API key of the app, and direct access to its parts."""

    url: str
    key: str
    behind: Service


@pytest.fixture(scope="module")
def served(
    make_database: Callable[[], AbstractContextManager[str]], redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with make_database() as database_url, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = create_app(settings_for(database_url, redis_url, tmp_path_factory.mktemp("state")))
        with transaction(app.state.parts.sessions) as session:
            key = keys.create(session, "test")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            http = TestClient(app, headers={"authorization": f"Bearer {key}"})
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", key, Service(app, http, key))
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def service(served: Served) -> Iterator[SecureTune]:
    with SecureTune(served.url, served.key) as service:
        yield service
