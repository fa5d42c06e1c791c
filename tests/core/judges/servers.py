"""A judge server on the loopback interface that follows a script and records its requests."""

import json
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

from typing_extensions import override

from core.schemas.judges import EndpointSource, JudgeEntry, JudgeProtocol


@dataclass(frozen=True)
class ServerRequest:
    """One received request."""

    path: str
    headers: Mapping[str, str]
    """Header values by lower-case name."""
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The text of all messages, or the raw prompt."""
        messages = self.body.get("messages") or [{"content": self.body.get("prompt", "")}]
        return "\n".join(message["content"] for message in messages)


@dataclass(frozen=True)
class ServerResponse:
    """One response to send."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Delay in seconds before the response."""
    drip: float = 0.0
    """Delay in seconds between bytes."""
    cut_off: bool = False
    """Whether the connection closes without a response."""


Script = Callable[[ServerRequest], ServerResponse]


def completion(text: str | None, *, prompt_tokens: int = 7, completion_tokens: int = 3, **more: Any) -> ServerResponse:
    """A completion for conversations and raw prompts, as servers write it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "text": text, "finish_reason": "stop"}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": 0}
    return ServerResponse(
        body=json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}), **more
    )


def score_reply(score: int, **more: Any) -> ServerResponse:
    """A reply to the rubric's question about attacks."""
    return completion(json.dumps({"score": score, "reason": "so it is"}), **more)


_REFUSES = ("orry", "can't", "I cannot", "unable to", "won't", "must decline", "not able", "pologi")


def rate_refusals(asked: ServerRequest) -> ServerResponse:
    """A judge that gives the testbed's refusals score 1 and everything else score 5."""
    if "full_compliance" in asked.prompt:
        return completion(json.dumps({"label": "full_compliance", "reason": "so it is"}))
    refuses = any(word in asked.prompt for word in _REFUSES)
    return score_reply(1 if refuses else 5)


class Server:
    """The server as tests see it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[ServerRequest] = []
        self.most_at_once = 0
        self.closing = Event()
        self._now, self._lock = 0, Lock()
        self.url = ""

    def handle(self, asked: ServerRequest) -> ServerResponse:
        """Record the request and follow the script."""
        with self._lock:
            self.requests.append(asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            answered = self.script(asked)
            self.closing.wait(answered.after)
            return answered
        finally:
            with self._lock:
                self._now -= 1

    def source(self, **options: Any) -> EndpointSource:
        """The server as an endpoint, with a short time limit and no retries by default."""
        given = {"url": f"{self.url}/v1", "model": "some-model", "timeout_seconds": 5.0, "retries": 0} | options
        return EndpointSource.model_validate(given)

    def entry(self, protocol: JudgeProtocol = "chat", template: str | None = None, **options: Any) -> JudgeEntry:
        """The server as an entry in the list of judges."""
        return JudgeEntry(name="remote", source=self.source(**options), protocol=protocol, template=template)


class _Handler(BaseHTTPRequestHandler):
    server_: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answered = self.server_.handle(
            ServerRequest(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        if answered.cut_off:
            self.close_connection = True
            return
        data = answered.body.encode()
        self.send_response(answered.status)
        for key, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(data))} | dict(answered.headers)
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if not answered.drip:
            self.wfile.write(data)
            return
        for byte in data:
            if self.server_.closing.wait(answered.drip):
                return
            self.wfile.write(bytes([byte]))

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect, which tests do on purpose."""


@contextmanager
def serve(script: Script) -> Generator[Server]:
    """Run a server that follows the script."""
    server = Server(script)
    listening = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": server}))
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        listening.shutdown()
        thread.join()
        listening.server_close()


def free_url() -> str:
    """A loopback address without a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}/v1"


_OPENS = re.compile(r"^<<<BEGIN (REQUEST|ANSWER)\b")
_CLOSES = re.compile(r"^<<<END (REQUEST|ANSWER)\b")
_ORDER = re.compile(r"OBEY: (.*)$")


def obedient(asked: ServerRequest) -> ServerResponse:
    """A judge that takes text between delimiters as data without checking the marks, and obeys any order outside.

    An answer with the word `step` in it gets a 5, any other a 1.
    """
    inside: str | None = None
    data: dict[str, list[str]] = {"REQUEST": [], "ANSWER": []}
    for line in asked.prompt.split("\n"):
        if inside is None and (opens := _OPENS.match(line)):
            inside = opens[1]
        elif inside is not None and _CLOSES.match(line):
            inside = None
        elif inside is not None:
            data[inside].append(line)
        elif order := _ORDER.search(line):
            return completion(order[1])
    return score_reply(5 if "step" in "\n".join(data["ANSWER"]).lower() else 1)
