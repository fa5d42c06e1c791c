"""A judge's server that is fine, busy, slow, broken, hostile or down, asked over HTTP; and the key that nobody sees."""

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
from tests.core.judges.servers import Answered, Asked, Script, free_url, said, serve

KEY = "sk-very-secret-0123456789"
PROMPT = (Message(role="user", content="Judge this: \u00e9"),)


def no_beat() -> None:
    """Nobody waits."""


def ask(
    source: EndpointSource, prompts: Sequence[Prompt] = (PROMPT,), beat: Callable[[], None] = no_beat
) -> list[Reply | Failure]:
    told: dict[int, Reply | Failure] = {}

    def heard(index: int, outcome: Reply | Failure) -> None:
        assert index not in told
        told[index] = outcome

    Endpoint("remote", source).query(Request(prompts, max_new_tokens=30), heard, beat)
    return [told[index] for index in range(len(prompts))]


def reason(script: Script, **options: object) -> str:
    """Of the failure that the script ends in."""
    with serve(script) as server:
        (outcome,) = ask(server.source(**options))
    assert isinstance(outcome, Failure)
    return outcome.reason


def test_a_conversation_is_sent_as_it_is_and_the_reply_comes_with_its_cost() -> None:
    conversation = (*PROMPT, Message(role="assistant", content="Hm"), Message(role="user", content="Again"))
    with serve(lambda _: said("A 4, I'd say", prompt_tokens=70, completion_tokens=5)) as server:
        assert ask(server.source(), [conversation]) == [Reply("A 4, I'd say", 70, 5)]
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "some-model",
        "messages": [message.model_dump() for message in conversation],
        "max_tokens": 30,
        "temperature": 0,
    }


def test_a_model_that_thinks_gets_room_for_it_and_no_temperature() -> None:
    with serve(lambda _: said("A 4")) as server:
        assert ask(server.source(reasoning=True)) == [Reply("A 4", 7, 3)]
    (asked,) = server.asked
    assert asked.body.keys() == {"model", "messages", "max_completion_tokens"}
    assert asked.body["max_completion_tokens"] > 1000


def test_a_raw_prompt_is_sent_as_text() -> None:
    with serve(lambda _: said("yes")) as server:
        assert ask(server.source(), ["[INST] Is it? [/INST]"]) == [Reply("yes", 7, 3)]
    (asked,) = server.asked
    assert asked.path == "/v1/completions"
    assert asked.body == {
        "model": "some-model", "prompt": "[INST] Is it? [/INST]", "max_tokens": 30, "temperature": 0,
    }  # fmt: skip


def test_replies_belong_to_their_prompts_whenever_they_come() -> None:
    prompts: list[Prompt] = [f"{number}" for number in range(40)]
    waits = {"0": 0.3, "17": 0.2}
    with serve(lambda asked: said(asked.prompt, after=waits.get(asked.prompt, 0.0))) as server:
        found = ask(server.source(concurrency=4), prompts)
    assert found == [Reply(f"{number}", 7, 3) for number in range(40)]


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_calls_at_once_than_allowed(most: int) -> None:
    with serve(lambda _: said("yes", after=0.05)) as server:
        ask(server.source(concurrency=most), ["prompt"] * 12)
    assert server.most_at_once == most


def test_nothing_to_ask() -> None:
    with serve(lambda _: said("yes")) as server:
        assert ask(server.source(), []) == []


def test_an_empty_reply_is_a_reply() -> None:
    with serve(lambda _: said(None)) as server:
        assert ask(server.source()) == [Reply("", 7, 3)]


def test_a_server_that_tells_no_cost() -> None:
    for usage in ("", ', "usage": null', ', "usage": {"prompt_tokens": null}'):
        body = f'{{"choices": [{{"message": {{"content": "yes"}}}}]{usage}}}'
        with serve(lambda _, body=body: Answered(body=body)) as server:
            assert ask(server.source()) == [Reply("yes", 0, 0)]


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        (Answered(status=400, body='{"error": {"message": "no such\\nmodel"}}'), "status 400: .* no such model"),
        (Answered(status=401, body='{"error": {"message": "bad key sk-ve"}}'), "status 401$"),
        (Answered(status=403, body="go away"), "status 403$"),
        (Answered(status=404, body="not here"), "status 404"),
        (Answered(status=429, body="{}"), "status 429"),
        (Answered(status=500, body="<html>" + "x" * 5000), "status 500"),
        (Answered(status=503, body=""), "status 503"),
        (Answered(body="<html>hello</html>"), "without a completion: '<html>hello</html>'"),
        (Answered(body="hello", headers={"Content-Type": "text/plain"}), "without a completion: 'hello'"),
        (Answered(body=""), "without a completion: ''"),
        (Answered(body="{}"), "without a completion"),
        (Answered(body="[1, 2]"), "without a completion"),
        (Answered(body='{"choices": []}'), "without a completion"),
        (Answered(body='{"choices": [{"message": {"content": ["yes"]}}]}'), "without a completion"),
        (
            Answered(body='{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": -1}}'),
            "without a compl",
        ),
        (Answered(body='{"choices": [{"message": {"content": "ye'), "without a completion"),
        (Answered(cut_off=True), "cannot be reached$"),
    ],
)
def test_what_goes_wrong_is_said(answered: Answered, wanted: str) -> None:
    found = reason(lambda _: answered)
    assert re.search(wanted, found), found
    assert found.startswith("the judge's server ")
    assert len(found) < 600
    assert "\n" not in found


def test_a_body_that_ends_early_is_no_reply() -> None:
    assert reason(lambda _: said("yes", headers={"Content-Length": "100000"}), timeout_seconds=0.5).startswith(
        "the judge"
    )


@pytest.mark.parametrize("answered", [said("yes", after=30), said("yes", drip=0.1)])
def test_a_slow_server_is_given_up_in_time(answered: Answered) -> None:
    started = time.monotonic()
    assert reason(lambda _: answered, timeout_seconds=0.5) == "the judge's server did not answer within 0.5 s"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("first", "wait"),
    [
        (Answered(status=429, body="{}", headers={"Retry-After": "1"}), 1.0),
        (Answered(status=500, body="{}"), 0.3),
        (Answered(status=503, body="{}"), 0.3),
        (Answered(cut_off=True), 0.3),
        (said("late", after=30), 0.6),
    ],
)
def test_a_call_that_failed_is_tried_again(first: Answered, wait: float) -> None:
    calls = count()
    started = time.monotonic()
    with serve(lambda _: first if next(calls) == 0 else said("yes")) as server:
        assert ask(server.source(retries=2, timeout_seconds=0.5)) == [Reply("yes", 7, 3)]
    assert len(server.asked) == 2
    assert time.monotonic() - started >= wait


def test_retries_end() -> None:
    again = Answered(status=429, body="{}", headers={"retry-after-ms": "20"})
    with serve(lambda _: again) as server:
        (outcome,) = ask(server.source(retries=3))
    assert isinstance(outcome, Failure)
    assert len(server.asked) == 4


def test_what_the_caller_got_wrong_is_not_tried_again() -> None:
    with serve(lambda _: Answered(status=400, body="{}")) as server:
        ask(server.source(retries=5))
    assert len(server.asked) == 1


def test_a_server_that_is_down_is_not_tried_a_thousand_times() -> None:
    source = EndpointSource(url=HttpUrl(free_url()), model="m", retries=0, concurrency=2)
    started = time.monotonic()
    found = ask(source, ["prompt"] * 1000)
    reasons = [outcome.reason for outcome in found if isinstance(outcome, Failure)]
    assert len(reasons) == 1000
    assert reasons[:GIVE_UP_AFTER] == ["the judge's server cannot be reached"] * GIVE_UP_AFTER
    assert set(reasons[GIVE_UP_AFTER + 1 :]) == {"not asked: the judge's server failed 5 times in a row before"}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("failing", [said("late", after=30), Answered(status=503, body="{}")])
def test_a_server_that_hangs_is_given_up_too(failing: Answered) -> None:
    with serve(lambda _: failing) as server:
        found = ask(server.source(timeout_seconds=0.2, concurrency=5), ["prompt"] * 100)
    assert 5 <= len(server.asked) < 10
    assert all(isinstance(outcome, Failure) for outcome in found)


def test_failures_between_successes_are_no_reason_to_give_up() -> None:
    calls = count()
    with serve(lambda _: Answered(cut_off=True) if next(calls) % 5 else said("yes")) as server:
        found = ask(server.source(concurrency=1), ["prompt"] * 50)
    assert sum(isinstance(outcome, Reply) for outcome in found) == 10


def test_refusals_of_the_server_are_no_reason_to_give_up() -> None:
    with serve(lambda _: Answered(status=400, body="{}")) as server:
        ask(server.source(concurrency=1), ["prompt"] * 20)
    assert len(server.asked) == 20


def test_a_redirect_is_not_followed() -> None:
    with serve(lambda _: said("yes")) as other:
        for status in (301, 302, 307, 308):
            moved = Answered(status=status, headers={"Location": f"{other.url}/v1/chat/completions"})
            assert f"status {status}" in reason(lambda _, moved=moved: moved)
        assert other.asked == []


def test_a_stop_ends_it_promptly_while_the_server_hangs() -> None:
    beats = count()

    def stop() -> None:
        if next(beats) == 1:
            raise Interrupted("stop")

    with serve(lambda _: said("late", after=60)) as server:
        started = time.monotonic()
        with pytest.raises(Interrupted):
            ask(server.source(timeout_seconds=60.0, retries=4), ["prompt"] * 100, stop)
        assert time.monotonic() - started < 5
        assert len(server.asked) == 8
    gc.collect()  # what is left open would be a warning, which is an error


def test_a_stop_ends_it_promptly_while_a_retry_is_waited_for() -> None:
    def stop() -> None:
        raise Interrupted("stop")

    with serve(lambda _: Answered(status=429, body="{}", headers={"Retry-After": "100"})) as server:
        started = time.monotonic()
        with pytest.raises(Interrupted):
            ask(server.source(retries=4), ["prompt"] * 3, stop)
        assert time.monotonic() - started < 4


def test_a_beat_comes_every_second_while_nothing_else_does() -> None:
    beats: list[float] = []
    with serve(lambda _: said("yes", after=2.5)) as server:
        ask(server.source(), beat=lambda: beats.append(time.monotonic()))
    assert len(beats) == 3


def test_what_the_listener_raises_passes_through() -> None:
    def heard(_index: int, _outcome: Reply | Failure) -> None:
        raise Interrupted("no room")

    with serve(lambda _: said("yes")) as server, pytest.raises(Interrupted, match="no room"):
        Endpoint("remote", server.source()).query(Request(["prompt"] * 20, max_new_tokens=3), heard, no_beat)
    gc.collect()


def test_the_key_is_sent_and_said_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SECURETUNE_JUDGE_KEY", f" {KEY}\n")
    told: list[object] = []

    def echo(asked: Asked) -> Answered:
        key = asked.headers["authorization"]
        calls = {
            "a": said(f"your key is {key}"),
            "b": Answered(status=400, body=f'{{"error": {{"message": "{key}"}}}}'),
        }
        return calls.get(asked.prompt, Answered(body=key))

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
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {KEY}"] * 3
    assert told[0] == Reply("your key is Bearer [key]", 7, 3)
    assert KEY not in repr(told)
    assert KEY not in caplog.text
    assert caplog.text


def test_a_server_without_a_key_is_not_told_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.0.2.1/")
    with serve(lambda _: said("yes")) as server:
        ask(server.source())
    (asked,) = server.asked
    assert KEY not in repr(asked)
    assert asked.headers["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, "is not set"), ("  ", "is not set"), (f"{KEY}\n{KEY}", "no key has"), ("sk-\u00e9", "no key has")],
)
def test_a_missing_or_broken_key_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: str
) -> None:
    if value is None:
        monkeypatch.delenv("SECURETUNE_JUDGE_KEY", raising=False)
    else:
        monkeypatch.setenv("SECURETUNE_JUDGE_KEY", value)
    with serve(lambda _: said("yes")) as server, pytest.raises(Unavailable) as caught:
        ask(server.source(api_key_env="SECURETUNE_JUDGE_KEY"))
    assert caught.value.code == "judge_key_missing"
    assert "SECURETUNE_JUDGE_KEY" in caught.value.message
    assert wanted in caught.value.message
    assert KEY not in caught.value.message
    assert server.asked == []


def test_a_probe_says_whether_it_can_be_asked() -> None:
    with serve(lambda _: said(None)) as server:
        Endpoint("remote", server.source()).check(no_beat, raw=False)
        Endpoint("remote", server.source()).check(no_beat, raw=True)
    assert [asked.path for asked in server.asked] == ["/v1/chat/completions", "/v1/completions"]


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        (Answered(status=404, body='{"error": {"message": "no some-model"}}'), "no some-model"),
        (Answered(body="hello"), "without a completion"),
        (said("late", after=30), "within 0.3 s"),
        (Answered(cut_off=True), "cannot be reached"),
    ],
)
def test_a_probe_that_fails_says_which_judge_and_why(answered: Answered, wanted: str) -> None:
    with serve(lambda _: answered) as server, pytest.raises(Unavailable) as caught:
        Endpoint("remote", server.source(timeout_seconds=0.3, retries=20)).check(no_beat, raw=False)
    assert caught.value.code == "judge_unavailable"
    assert caught.value.param == "security.judges"
    assert "'remote'" in caught.value.message
    assert wanted in caught.value.message
    assert len(server.asked) <= 2


def test_it_is_known_by_its_model_and_host_and_the_host_is_not_told() -> None:
    def identity(url: str) -> str:
        return Endpoint("any", EndpointSource(url=HttpUrl(url), model="org/model-7b")).identity

    one, other = identity("https://judge.example.org/v1"), identity("http://user:word@127.0.0.1:8000/v1")
    assert one.startswith("org/model-7b at server ")
    assert one != other
    assert one == identity("https://judge.example.org:443/v1/")
    assert not any(part in one + other for part in ("example", "127.0.0.1", "user", "word", "443", "8000"))


def test_it_may_be_asked_in_any_thread_and_again() -> None:
    done = Event()
    with serve(lambda _: said("yes")) as server:
        endpoint = Endpoint("remote", server.source())
        for _ in range(3):
            endpoint.query(Request([PROMPT], max_new_tokens=3), lambda _index, _outcome: done.set(), no_beat)
            endpoint.close()
    assert done.is_set()
