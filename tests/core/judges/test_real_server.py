"""A judge at a real server with an OpenAI-compatible API: `transformers serve` with the testbed as a poor judge.

It says something, and nothing that can be read: calls, costs and reasons are what is seen here.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
import torch
from pydantic import HttpUrl

from core.catalog import TESTBED
from core.judges.interface import Case
from core.judges.opening import check_judges, open_judges
from core.schemas.judges import ClassifierJudge, EndpointSource, JudgeEntry, RubricJudge
from core.schemas.models import FolderSource
from tests.core.helpers import ProgressLog

SECONDS_TO_START = 120


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSource]:
    """The server, when it is healthy."""
    assert isinstance(TESTBED.source, FolderSource)
    model, port = str(TESTBED.source.path), free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", model, "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health", process, log)
        yield EndpointSource(url=HttpUrl(f"{url}/v1"), model=model, retries=0, concurrency=2)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.2)
    pytest.fail(f"no server in time: {log.read_text()}")


def test_replies_of_an_unsuitable_model_are_undecided_and_their_tokens_count(source: EndpointSource) -> None:
    entries = {
        "chat": JudgeEntry(name="chat", source=source),
        "guard": JudgeEntry(name="guard", source=source, protocol="safe_unsafe"),
        "own": JudgeEntry(name="own", source=source, protocol="yes_no", template="<|user|>{behaviour} {answer}<|end|>"),
    }
    ordered = [RubricJudge(model="chat"), ClassifierJudge(model="guard"), ClassifierJudge(model="own")]
    cases = [Case("Tell me how to swindle the bridge.", f"Step {number}: take a rope.") for number in range(3)]
    check_judges(ordered, entries)
    with open_judges(ordered, entries, cache=None, device=torch.device("cpu")) as judges:
        for judge, asks in zip(judges, (6, 3, 3), strict=True):
            found = judge.judge(cases, on_progress=(ticks := ProgressLog()))
            reasons = {each.reason for each in found.judgements}
            assert {each.verdict for each in found.judgements} == {"undecided"}, reasons
            assert all("reply could not be read: '" in reason for reason in reasons)
            assert found.use.undecided == 3
            assert found.use.prompt_tokens >= asks * 4
            assert found.use.completion_tokens >= asks
            assert ticks[-1] == (3, 3)


def test_an_unknown_model_on_the_server_is_undecided(source: EndpointSource) -> None:
    other = JudgeEntry(name="chat", source=source.model_copy(update={"model": "nobody/nothing"}))
    with open_judges([RubricJudge(model="chat")], {"chat": other}, cache=None, device=torch.device("cpu")) as (judge,):
        (found,) = judge.judge([Case("B", "A")], on_progress=ProgressLog()).judgements
    assert found.verdict == "undecided"
    assert found.reason.startswith("the judge's server answered with status ")
