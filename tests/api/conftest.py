"""The app on a database of its own, with a key that may call it, and hands to put a job into any state.

One service serves a whole file of tests: what a test needs it makes itself, and it counts only what it made.
"""

import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr

from api.deps import Parts
from api.main import create_app
from core.config import Settings
from core.db import artifacts, jobs, keys
from core.db import weights as trained_weights
from core.db.session import Sessions, transaction
from core.schemas.events import JobError
from core.schemas.gate import GateDecision, GateOutcome, GateReason
from core.schemas.keys import Right
from core.schemas.results import JudgedWeights
from core.schemas.state import Status
from core.storage import ArtifactStore

ROWS = [{"prompt": f"What is {n} + {n}?", "completion": f"{2 * n}."} for n in range(5)]
MAX_UPLOAD_BYTES = 4 * 2**20
MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Service:
    """A running app and what is behind it."""

    app: FastAPI
    http: TestClient
    key: str

    @property
    def parts(self) -> Parts:
        return self.app.state.parts

    @property
    def sessions(self) -> Sessions:
        return self.parts.sessions

    @property
    def store(self) -> ArtifactStore:
        return self.parts.store

    @property
    def celery(self) -> Celery:
        return self.parts.celery

    def upload(self, content: bytes, **fields: str) -> Response:
        return self.http.post("/datasets", files={"file": ("rows.jsonl", content)}, data=fields)

    def upload_prompts(self, content: bytes | str, layout: str | None = "plain", **fields: str) -> Response:
        named = fields if layout is None else fields | {"layout": layout}
        body = content.encode() if isinstance(content, str) else content
        return self.http.post("/prompt-sets", files={"file": ("prompts.csv", body)}, data=named)

    def dataset(self, tag: str) -> str:
        """The id of a dataset; each tag has its own."""
        reply = self.upload(jsonl([*ROWS, {"prompt": "Who?", "completion": tag}]))
        assert reply.status_code in (200, 201), reply.text
        return reply.json()["id"]

    def job(self, tag: str) -> str:
        reply = self.http.post("/jobs", json={"base_model": "testbed", "dataset": self.dataset(tag)})
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    def run(self, job_id: str) -> jobs.Claim:
        """What a worker does first."""
        with transaction(self.sessions) as session:
            claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
        assert claim is not None
        return claim

    def end(
        self,
        job_id: str,
        status: Status,
        files: dict[str, tuple[bytes, str]] | None = None,
        outcome: GateOutcome = "released",
        gated: bool | None = None,
        *,
        weights: str | None = None,
    ) -> None:
        """What a worker does last; `files` are name -> (content, media type), `outcome` is the gate's.

        Files of an adapter or a model are gated, unless `gated` says which. `weights` is the digest of the weights.
        """
        claim = self.run(job_id)
        trained = ("adapter", "model/", "model.tar")
        folder = f"jobs/{job_id}/{claim.attempt}"
        stored = [
            self.store.put(
                f"{folder}/{name}",
                content,
                name=name,
                media_type=media_type,
                gated=name.startswith(trained) if gated is None else gated,
            )
            for name, (content, media_type) in (files or {}).items()
        ]
        error = JobError(code="training_failed", message="The loss exploded.") if status == "failed" else None
        with transaction(self.sessions) as session:
            artifacts.put(session, job_id, stored)
            jobs.finish(session, claim, status, error, gate=decided(outcome) if status == "succeeded" else None)
            if weights is not None:
                judged = JudgedWeights(sha256=weights, gate=decided(outcome))
                trained_weights.add(session, job_id, [judged], own=judged.gate.run)

    def new_key(self, name: str, *rights: Right, project: str = "default") -> dict[str, str]:
        """The header of another key."""
        with transaction(self.sessions) as session:
            return {"authorization": f"Bearer {keys.create(session, name, project=project, rights=rights)}"}


def decided(outcome: GateOutcome) -> GateDecision:
    """What the gate may have said."""
    reason = GateReason(code="attack_success_too_high", message="Attack success of direct is 75 %.")
    reasons = () if outcome == "released" else (reason,)
    return GateDecision(run="ml_lr", outcome=outcome, reasons=reasons, checks=(), policy_version=0)


def documented(document: dict[str, Any]) -> Callable[[Response], None]:
    """Fails a test when a status comes back that the OpenAPI document does not name."""
    paths = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), methods) for path, methods in document["paths"].items()]

    def check(response: Response) -> None:
        for path, methods in paths:
            operation = methods.get(response.request.method.lower())
            if operation and path.fullmatch(response.request.url.path):
                assert str(response.status_code) in operation["responses"], (response.request, response.status_code)

    return check


def jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def settings_for(database_url: str, redis_url: str, state: Path) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        state=state,
        max_upload_bytes=MAX_UPLOAD_BYTES,
        max_body_bytes=MAX_BODY_BYTES,
    )


@contextmanager
def serving(settings: Settings) -> Generator[Service]:
    """A service of these settings, with a key that opens it."""
    app = create_app(settings)
    with TestClient(app) as http:
        with transaction(app.state.parts.sessions) as session:
            key = keys.create(session, "test")
        http.headers["authorization"] = f"Bearer {key}"
        http.event_hooks = {"response": [documented(app.openapi())]}
        yield Service(app, http, key)


@pytest.fixture(scope="module")
def service(
    make_database: Callable[[], AbstractContextManager[str]], redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with (
        make_database() as database_url,
        serving(settings_for(database_url, redis_url, tmp_path_factory.mktemp("state"))) as service,
    ):
        yield service


LIST = """
[judges.house]
source.kind = "endpoint"
source.url = "https://user:hunter2@judge.internal/v1"
source.model = "big"
source.api_key_env = "SECURETUNE_JUDGE_HOUSE"
description = "Our own."

[judges.guard]
source = { kind = "folder", path = "/srv/secret-place/guard" }
protocol = "safe_unsafe"

[judges.behaviours]
source = { kind = "hub", id = "org/classifier", revision = "REVISION" }
protocol = "yes_no"

[prompt_sets.xstest]
source = { kind = "hub", id = "org/xstest", revision = "REVISION", file = "xstest_prompts.csv" }
layout = "xstest"
description = "Look-alikes."

[prompt_sets.harmbench]
source = { kind = "file", path = "/srv/secret-place/harmbench.csv" }
layout = "harmbench"

[prompt_sets.advbench]
source = { kind = "file", path = "advbench.csv" }
layout = "advbench"

[benchmarks.medicine]
source = { kind = "file", path = "/srv/secret-place/medicine.jsonl" }
domain = "medical"
description = "Questions."

[benchmarks.law]
source = { kind = "hub", id = "org/mmlu", revision = "REVISION", file = "law.jsonl" }
domain = "legal"
""".replace("REVISION", "d" * 40)
SECRETS = ("hunter2", "internal", "SECURETUNE_JUDGE_HOUSE", "secret-place")
"""Of this list, what no reply tells."""


@pytest.fixture(scope="module")
def listing(
    make_database: Callable[[], AbstractContextManager[str]], redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that lists judges, prompt sets and benchmarks."""
    state = tmp_path_factory.mktemp("state")
    (state / "list.toml").write_text(LIST)
    with make_database() as database_url:
        settings = settings_for(database_url, redis_url, state).model_copy(update={"models": state / "list.toml"})
        with serving(settings) as service:
            yield service
