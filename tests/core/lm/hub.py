"""A model hub on the loopback interface: just enough of its protocol for the real client to download one repository."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from threading import Thread
from urllib.parse import unquote, urlsplit

from typing_extensions import override


@dataclass(frozen=True)
class Hub:
    """One repository with one revision."""

    files: Mapping[str, bytes]
    repo: str
    revision: str

    def tree(self) -> bytes:
        """The listing of its files."""
        return dumps(
            [
                {"type": "file", "path": name, "size": len(data), "oid": sha1(data, usedforsecurity=False).hexdigest()}
                for name, data in self.files.items()
            ]
        ).encode()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        headers = {"X-Repo-Commit": hub.revision}
        body, status = b"", 200
        if path == f"/api/models/{hub.repo}/tree/{hub.revision}":
            body = hub.tree()
        elif (name := path.removeprefix(f"/{hub.repo}/resolve/{hub.revision}/")) in hub.files:
            body = hub.files[name]
            headers["ETag"] = f'"{sha1(body, usedforsecurity=False).hexdigest()}"'
        else:
            known = f"/{hub.repo}/" in path
            status, headers["X-Error-Code"] = 404, "RevisionNotFound" if known else "RepoNotFound"
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body)), "Content-Type": "application/json"}).items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Its address, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
