"""Queries over HTTP to servers that are fine, busy, slow, broken, hostile or down; the API key is never disclosed."""

import gc
import logging
import re
import time
from collections.abc import Callable, Sequence
from itertools import count
from threading import Event

import pytest
from pydantic import HttpUrl

from core.errors import Interrupted, Unavailable
from core.judges.endpoint import GIVE_UP_AFTER, Endpoint
from core.judges.model import Failure, Prompt, Reply, Request
from core.schemas.data import Message
from core.schemas.judges import EndpointSource
from tests.core.judges.servers import Script, ServerRequest, ServerResponse, completion, free_url, serve

KEY = "sk-very-secret-0123456789"
PROMPT = (Message(role="user", content="Judge this: \u00e9"),)


def no_heartbeat() -> None:
    """Ignore the heartbeat."""


def ask(
    source: EndpointSource, prompts: Sequence[Prompt] = (PROMPT,), beat: Callable[[], None] = no_heartbeat
) -> list[Reply | Failure]:
    told: dict[int, Reply | Failure] = {}

    def heard(index: int, outcome: Reply | Failure) -> None:
        assert index not in told
        told[index] = outcome

    Endpoint("remote", source).query(Request(prompts, max_new_tokens=30), heard, beat)
    return [told[index] for index in range(len(prompts))]


def reason(script: Script, **options: object) -> str:
    """The reason of the failure that the script causes."""
    with serve(script) as server:
        (outcome,) = ask(server.source(**options))
    assert isinstance(outcome, Failure)
    return outcome.reason


def test_a_conversation_is_sent_unchanged_and_the_reply_has_its_tokens() -> None:
    conversation = (*PROMPT, Message(role="assistant", content="Hm"), Message(role="user", content="Again"))
    with serve(lambda _: completion("A 4, I'd say", prompt_tokens=70, completion_tokens=5)) as server:
        assert ask(server.source(), [conversation]) == [Reply("A 4, I'd say", 70, 5)]
    (asked,) = server.requests
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "some-model",
        "messages": [message.model_dump() for message in conversation],
        "max_tokens": 30,
        "temperature": 0,
    }


def test_a_reasoning_model_gets_more_tokens_and_no_temperature() -> None:
    with serve(lambda _: completion("A 4")) as server:
        assert ask(server.source(reasoning=True)) == [Reply("A 4", 7, 3)]
    (asked,) = server.requests
    assert asked.body.keys() == {"model", "messages", "max_completion_tokens"}
    assert asked.body["max_completion_tokens"] > 1000


def test_a_raw_prompt_is_sent_as_text() -> None:
    with serve(lambda _: completion("yes")) as server:
        assert ask(server.source(), ["[INST] Is it? [/INST]"]) == [Reply("yes", 7, 3)]
    (asked,) = server.requests
    assert asked.path == "/v1/completions"
    assert asked.body == {
        "model": "some-model", "prompt": "[INST] Is it? [/INST]", "max_tokens": 30, "temperature": 0,
    }  # fmt: skip


def test_replies_belong_to_their_prompts_in_any_order() -> None:
    prompts: list[Prompt] = [f"{number}" for number in range(40)]
    waits = {"0": 0.3, "17": 0.2}
    with serve(lambda asked: completion(asked.prompt, after=waits.get(asked.prompt, 0.0))) as server:
        found = ask(server.source(concurrency=4), prompts)
    assert found == [Reply(f"{number}", 7, 3) for number in range(40)]


@pytest.mark.parametrize("most", [1, 3])
def test_concurrency_is_limited(most: int) -> None:
    with serve(lambda _: completion("yes", after=0.05)) as server:
        ask(server.source(concurrency=most), ["prompt"] * 12)
    assert server.most_at_once == most


def test_no_prompts() -> None:
    with serve(lambda _: completion("yes")) as server:
        assert ask(server.source(), []) == []


def test_an_empty_reply_counts() -> None:
    with serve(lambda _: completion(None)) as server:
        assert ask(server.source()) == [Reply("", 7, 3)]


def test_a_server_without_token_counts() -> None:
    for usage in ("", ', "usage": null', ', "usage": {"prompt_tokens": null}'):
        body = f'{{"choices": [{{"message": {{"content": "yes"}}}}]{usage}}}'
        with serve(lambda _, body=body: ServerResponse(body=body)) as server:
            assert ask(server.source()) == [Reply("yes", 0, 0)]


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        (ServerResponse(status=400, body='{"error": {"message": "no such\\nmodel"}}'), "status 400: .* no such model"),
        (ServerResponse(status=401, body='{"error": {"message": "bad key sk-ve"}}'), "status 401$"),
        (ServerResponse(status=403, body="go away"), "status 403$"),
        (ServerResponse(status=404, body="not here"), "status 404"),
        (ServerResponse(status=429, body="{}"), "status 429"),
        (ServerResponse(status=500, body="<html>" + "x" * 5000), "status 500"),
        (ServerResponse(status=503, body=""), "status 503"),
        (ServerResponse(body="<html>hello</html>"), "without a completion: '<html>hello</html>'"),
        (ServerResponse(body="hello", headers={"Content-Type": "text/plain"}), "without a completion: 'hello'"),
        (ServerResponse(body=""), "without a completion: ''"),
        (ServerResponse(body="{}"), "without a completion"),
        (ServerResponse(body="[1, 2]"), "without a completion"),
        (ServerResponse(body='{"choices": []}'), "without a completion"),
        (ServerResponse(body='{"choices": [{"message": {"content": ["yes"]}}]}'), "without a completion"),
        (
            ServerResponse(body='{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": -1}}'),
            "without a compl",
        ),
        (ServerResponse(body='{"choices": [{"message": {"content": "ye'), "without a completion"),
        (ServerResponse(cut_off=True), "cannot be reached$"),
    ],
)
def test_failures_have_a_reason(answered: ServerResponse, wanted: str) -> None:
    found = reason(lambda _: answered)
    assert re.search(wanted, found), found
    assert found.startswith("the judge's server ")
    assert len(found) < 600
    assert "\n" not in found


def test_a_truncated_body_is_a_failure() -> None:
    assert reason(lambda _: completion("yes", headers={"Content-Length": "100000"}), timeout_seconds=0.5).startswith(
        "the judge"
    )


@pytest.mark.parametrize("answered", [completion("yes", after=30), completion("yes", drip=0.1)])
def test_a_slow_server_times_out(answered: ServerResponse) -> None:
    started = time.monotonic()
    assert reason(lambda _: answered, timeout_seconds=0.5) == "the judge's server did not answer within 0.5 s"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("first", "wait"),
    [
        (ServerResponse(status=429, body="{}", headers={"Retry-After": "1"}), 1.0),
        (ServerResponse(status=500, body="{}"), 0.3),
        (ServerResponse(status=503, body="{}"), 0.3),
        (ServerResponse(cut_off=True), 0.3),
        (completion("late", after=30), 0.6),
    ],
)
def test_a_failed_call_is_retried(first: ServerResponse, wait: float) -> None:
    calls = count()
    started = time.monotonic()
    with serve(lambda _: first if next(calls) == 0 else completion("yes")) as server:
        assert ask(server.source(retries=2, timeout_seconds=0.5)) == [Reply("yes", 7, 3)]
    assert len(server.requests) == 2
    assert time.monotonic() - started >= wait


def test_retries_end() -> None:
    again = ServerResponse(status=429, body="{}", headers={"retry-after-ms": "20"})
    with serve(lambda _: again) as server:
        (outcome,) = ask(server.source(retries=3))
    assert isinstance(outcome, Failure)
    assert len(server.requests) == 4


def test_client_errors_are_not_retried() -> None:
    with serve(lambda _: ServerResponse(status=400, body="{}")) as server:
        ask(server.source(retries=5))
    assert len(server.requests) == 1


def test_a_server_that_is_down_is_given_up() -> None:
    source = EndpointSource(url=HttpUrl(free_url()), model="m", retries=0, concurrency=2)
    started = time.monotonic()
    found = ask(source, ["prompt"] * 1000)
    reasons = [outcome.reason for outcome in found if isinstance(outcome, Failure)]
    assert len(reasons) == 1000
    assert reasons[:GIVE_UP_AFTER] == ["the judge's server cannot be reached"] * GIVE_UP_AFTER
    assert set(reasons[GIVE_UP_AFTER + 1 :]) == {"not sent: the judge's server failed 5 times in a row before"}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("failing", [completion("late", after=30), ServerResponse(status=503, body="{}")])
def test_a_server_that_hangs_is_given_up(failing: ServerResponse) -> None:
    with serve(lambda _: failing) as server:
        found = ask(server.source(timeout_seconds=0.2, concurrency=5), ["prompt"] * 100)
    assert 5 <= len(server.requests) < 10
    assert all(isinstance(outcome, Failure) for outcome in found)


def test_scattered_failures_do_not_give_up_the_server() -> None:
    calls = count()
    with serve(lambda _: ServerResponse(cut_off=True) if next(calls) % 5 else completion("yes")) as server:
        found = ask(server.source(concurrency=1), ["prompt"] * 50)
    assert sum(isinstance(outcome, Reply) for outcome in found) == 10


def test_client_errors_do_not_give_up_the_server() -> None:
    with serve(lambda _: ServerResponse(status=400, body="{}")) as server:
        ask(server.source(concurrency=1), ["prompt"] * 20)
    assert len(server.requests) == 20


def test_a_redirect_is_not_followed() -> None:
    with serve(lambda _: completion("yes")) as other:
        for status in (301, 302, 307, 308):
            moved = ServerResponse(status=status, headers={"Location": f"{other.url}/v1/chat/completions"})
            assert f"status {status}" in reason(lambda _, moved=moved: moved)
        assert other.requests == []


def test_a_stop_is_prompt_while_the_server_hangs() -> None:
    beats = count()

    def stop() -> None:
        if next(beats) == 1:
            raise Interrupted("stop")

    with serve(lambda _: completion("late", after=60)) as server:
        started = time.monotonic()
        with pytest.raises(Interrupted):
            ask(server.source(timeout_seconds=60.0, retries=4), ["prompt"] * 100, stop)
        assert time.monotonic() - started < 5
        assert len(server.requests) == 8
    gc.collect()  # what is left open would be a warning, which is an error


def test_a_stop_is_prompt_during_the_wait_for_a_retry() -> None:
    def stop() -> None:
        raise Interrupted("stop")

    with serve(lambda _: ServerResponse(status=429, body="{}", headers={"Retry-After": "100"})) as server:
        started = time.monotonic()
        with pytest.raises(Interrupted):
            ask(server.source(retries=4), ["prompt"] * 3, stop)
        assert time.monotonic() - started < 4


def test_the_heartbeat_comes_every_second() -> None:
    beats: list[float] = []
    with serve(lambda _: completion("yes", after=2.5)) as server:
        ask(server.source(), beat=lambda: beats.append(time.monotonic()))
    assert len(beats) == 3


def test_errors_of_the_callback_propagate() -> None:
    def heard(_index: int, _outcome: Reply | Failure) -> None:
        raise Interrupted("no room")

    with serve(lambda _: completion("yes")) as server, pytest.raises(Interrupted, match="no room"):
        Endpoint("remote", server.source()).query(Request(["prompt"] * 20, max_new_tokens=3), heard, no_heartbeat)
    gc.collect()


def test_the_key_is_sent_and_never_disclosed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SECURETUNE_JUDGE_KEY", f" {KEY}\n")
    told: list[object] = []

    def echo(asked: ServerRequest) -> ServerResponse:
        key = asked.headers["authorization"]
        calls = {
            "a": completion(f"your key is {key}"),
            "b": ServerResponse(status=400, body=f'{{"error": {{"message": "{key}"}}}}'),
        }
        return calls.get(asked.prompt, ServerResponse(body=key))

    caplog.set_level(logging.DEBUG)
    with serve(echo) as server:
        source = server.source(api_key_env="SECURETUNE_JUDGE_KEY")
        told += ask(source, ["a", "b", "c"])
        told += [
            source,
            Endpoint("remote", source),
            vars(Endpoint("remote", source)),
            Endpoint("remote", source).identity,
        ]
    assert [asked.headers["authorization"] for asked in server.requests] == [f"Bearer {KEY}"] * 3
    assert told[0] == Reply("your key is Bearer [key]", 7, 3)
    assert KEY not in repr(told)
    assert KEY not in caplog.text
    assert caplog.text


def test_a_server_without_a_key_gets_no_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.0.2.1/")
    with serve(lambda _: completion("yes")) as server:
        ask(server.source())
    (asked,) = server.requests
    assert KEY not in repr(asked)
    assert asked.headers["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, "is not set"), ("  ", "is not set"), (f"{KEY}\n{KEY}", "no key has"), ("sk-\u00e9", "no key has")],
)
def test_a_missing_or_broken_key_is_reported_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: str
) -> None:
    if value is None:
        monkeypatch.delenv("SECURETUNE_JUDGE_KEY", raising=False)
    else:
        monkeypatch.setenv("SECURETUNE_JUDGE_KEY", value)
    with serve(lambda _: completion("yes")) as server, pytest.raises(Unavailable) as caught:
        ask(server.source(api_key_env="SECURETUNE_JUDGE_KEY"))
    assert caught.value.code == "judge_key_missing"
    assert "SECURETUNE_JUDGE_KEY" in caught.value.message
    assert wanted in caught.value.message
    assert KEY not in caught.value.message
    assert server.requests == []


def test_a_check_sends_one_short_prompt() -> None:
    with serve(lambda _: completion(None)) as server:
        Endpoint("remote", server.source()).check(no_heartbeat, raw=False)
        Endpoint("remote", server.source()).check(no_heartbeat, raw=True)
    assert [asked.path for asked in server.requests] == ["/v1/chat/completions", "/v1/completions"]


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        (ServerResponse(status=404, body='{"error": {"message": "no some-model"}}'), "no some-model"),
        (ServerResponse(body="hello"), "without a completion"),
        (completion("late", after=30), "within 0.3 s"),
        (ServerResponse(cut_off=True), "cannot be reached"),
    ],
)
def test_a_failed_check_names_the_judge_and_the_reason(answered: ServerResponse, wanted: str) -> None:
    with serve(lambda _: answered) as server, pytest.raises(Unavailable) as caught:
        Endpoint("remote", server.source(timeout_seconds=0.3, retries=20)).check(no_heartbeat, raw=False)
    assert caught.value.code == "judge_unavailable"
    assert caught.value.param == "security.judges"
    assert "'remote'" in caught.value.message
    assert wanted in caught.value.message
    assert len(server.requests) <= 2


def test_the_identity_depends_on_model_and_host_without_disclosing_the_host() -> None:
    def identity(url: str) -> str:
        return Endpoint("any", EndpointSource(url=HttpUrl(url), model="org/model-7b")).identity

    one, other = identity("https://judge.example.org/v1"), identity("http://user:word@127.0.0.1:8000/v1")
    assert one.startswith("org/model-7b at server ")
    assert one != other
    assert one == identity("https://judge.example.org:443/v1/")
    assert not any(part in one + other for part in ("example", "127.0.0.1", "user", "word", "443", "8000"))


def test_it_can_be_queried_again_and_in_any_thread() -> None:
    done = Event()
    with serve(lambda _: completion("yes")) as server:
        endpoint = Endpoint("remote", server.source())
        for _ in range(3):
            endpoint.query(Request([PROMPT], max_new_tokens=3), lambda _index, _outcome: done.set(), no_heartbeat)
            endpoint.close()
    assert done.is_set()
