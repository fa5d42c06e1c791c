"""Bodies over the limit: announced, or found out while they arrive."""

import asyncio
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from api.limits import MULTIPART_SLACK, BodyLimit
from tests.api.conftest import Service

SMALL, LARGE = 100, 1000


def in_pieces(size: int) -> Iterator[bytes]:
    yield from (b" " * 1000 for _ in range(size // 1000))


def test_an_announced_length_is_enough_to_refuse(service: Service) -> None:
    reply = service.http.post("/jobs", content=b" " * 70_000)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert reply.headers["x-request-id"]


def test_a_body_of_unknown_length_is_counted(service: Service) -> None:
    reply = service.http.post("/jobs", content=in_pieces(70_000), headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("size", [4 * 2**20 + 1, 6 * 2**20])
def test_an_upload_over_the_limit_leaves_nothing(service: Service, size: int) -> None:
    before = set(service.store.root.rglob("*"))
    reply = service.upload(b" " * size)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert set(service.store.root.rglob("*")) - before <= {service.store.root / "staging"}


async def run(path: str, pieces: list[bytes], announced: int | None = None) -> tuple[int, list[int]]:
    """The bytes that the app behind the limit got to see, and the statuses that went out."""
    seen = 0
    statuses: list[int] = []
    left = list(pieces)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal seen
        more = True
        while more:
            message = await receive()
            seen += len(message["body"])
            more = message["more_body"]

    async def receive() -> Message:
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers: list[tuple[bytes, bytes]] = [] if announced is None else [(b"content-length", str(announced).encode())]
    limit = BodyLimit(app, upload=LARGE, upload_paths=frozenset({"/up"}), other=SMALL)
    try:
        await limit({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    except HTTPException as error:
        statuses.append(error.status_code)
    return seen, statuses


@pytest.mark.parametrize(
    ("path", "size", "announced", "seen", "statuses"),
    [
        ("/x", SMALL, None, SMALL, []),
        ("/x", SMALL + 1, None, SMALL - 40, [413]),
        ("/x", SMALL + 1, 5, SMALL - 40, [413]),
        ("/x", SMALL, SMALL + 1, 0, [413]),
        ("/x", SMALL, 10**30, 0, [413]),
        ("/up", 800, 800, 800, []),
        ("/up/", 800, None, 60, [413]),
    ],
)
def test_bytes_are_counted_whatever_was_announced(
    path: str, size: int, announced: int | None, seen: int, statuses: list[int]
) -> None:
    pieces = [b"x" * 60 for _ in range(size // 60)] + [b"x" * (size % 60)]
    assert asyncio.run(run(path, pieces, announced)) == (seen, statuses)


def test_an_upload_may_be_as_large_as_its_limit_and_the_form_around_it() -> None:
    size = LARGE + MULTIPART_SLACK
    assert asyncio.run(run("/up", [b"x" * size])) == (size, [])
    assert asyncio.run(run("/up", [b"x" * (size + 1)])) == (0, [413])
