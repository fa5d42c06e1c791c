"""A judge model behind a server with an OpenAI-compatible API, queried by simultaneous calls.

Covers: the API key, time limits, reasons of failures, giving up on a server that is down. A raw prompt goes to
`completions`, a conversation to `chat/completions`. Not here: prompts.
"""

import asyncio
import os
import re
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, cast

import httpx2
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    DefaultAsyncHttpxClient,
    OpenAIError,
)
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import override

from core.errors import Unavailable
from core.judges.model import Failure, Heartbeat, OnReply, Prompt, Reply, Request
from core.judges.text import shorten
from core.schemas.data import Message
from core.schemas.judges import EndpointSource

if TYPE_CHECKING:  # private types, needed only to annotate an overridden method
    from httpx2._client import UseClientDefault
    from httpx2._types import AuthTypes

GIVE_UP_AFTER = 5
"""Number of consecutive calls, each with all its retries, that reach no server before the rest is skipped."""

_HEARTBEAT_SECONDS = 1.0
_NO_KEY = "none"
_KEY = re.compile(r"[\x21-\x7e]+")
_UNREACHABLE_STATUS = {502, 503, 504}
_KEY_STATUS = {401, 403}
_PROBE = "Reply with the word ready."
_PROBE_RETRIES = 1
_REASONING_TOKENS = 4096


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=0, ge=0)
    completion_tokens: int | None = Field(default=0, ge=0)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message = _Message()
    text: str | None = None


class _Completion(BaseModel):
    """The parts of a completion that are used: `message` after a conversation, `text` after a raw prompt."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Unreachable(Failure):
    """No server answered."""


class _TimeLimited(DefaultAsyncHttpxClient):
    """Limits the time of a whole exchange; the client's own limit restarts with every byte. Follows no redirects."""

    def __init__(self, seconds: float) -> None:
        super().__init__(timeout=seconds, follow_redirects=False)
        self._seconds = seconds

    @override
    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: "AuthTypes | UseClientDefault | None" = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: "bool | UseClientDefault" = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._seconds):
                return await super().send(request, stream=stream, auth=auth, follow_redirects=follow_redirects)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the exchange took too long", request=request) from error


class Endpoint:
    """A judge model behind a server; see `JudgeModel`."""

    special_tokens: tuple[str, ...] = ()

    def __init__(self, name: str, source: EndpointSource) -> None:
        self._name, self._source = name, source

    @property
    def identity(self) -> str:
        """The model's name on the server, and a digest of the address, which reports do not disclose."""
        where = sha256(f"{self._source.url.host}:{self._source.url.port}".encode()).hexdigest()
        return f"{self._source.model} at server {where[:8]}"

    def check(self, heartbeat: Heartbeat, *, raw: bool) -> None:
        """Send a short prompt, raw or as a conversation, with at most one retry.

        Raises:
            Unavailable: code `judge_key_missing` or `judge_unavailable`.
        """
        source = self._source.model_copy(update={"retries": min(self._source.retries, _PROBE_RETRIES)})
        prompt: Prompt = _PROBE if raw else (Message(role="user", content=_PROBE),)

        def on_reply(_index: int, outcome: Reply | Failure) -> None:
            if isinstance(outcome, Failure):
                raise Unavailable(
                    f"The judge model {self._name!r} does not answer: {outcome.reason}.",
                    code="judge_unavailable",
                    param="security.judges",
                )

        Endpoint(self._name, source).query(Request([prompt], max_new_tokens=8), on_reply, heartbeat)

    def query(self, request: Request, on_reply: OnReply, heartbeat: Heartbeat) -> None:
        """See `JudgeModel.query`. If `on_reply` or `heartbeat` raises, running calls are cancelled at once.

        Raises:
            Unavailable: code `judge_key_missing`.
        """
        asyncio.run(self._query(request, on_reply, heartbeat, _read_key(self._name, self._source)))

    def close(self) -> None:
        """Nothing to free: no connection outlives a query."""

    async def _query(self, request: Request, on_reply: OnReply, heartbeat: Heartbeat, key: str | None) -> None:
        waiting = iter(enumerate(request.prompts))
        running: dict[asyncio.Task[Reply | Failure], int] = {}
        unreachable = 0
        async with self._client(key) as client:
            try:
                while True:
                    if unreachable < GIVE_UP_AFTER:
                        for index, prompt in islice(waiting, self._source.concurrency - len(running)):
                            call = self._call(client, prompt, request.max_new_tokens, key)
                            running[asyncio.create_task(call)] = index
                    if not running:
                        break
                    done, _ = await asyncio.wait(
                        running, timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        outcome = task.result()
                        unreachable = unreachable + 1 if isinstance(outcome, _Unreachable) else 0
                        on_reply(running.pop(task), outcome)
                    heartbeat()
                for index, _ in waiting:
                    reason = f"not sent: the judge's server failed {GIVE_UP_AFTER} times in a row before"
                    on_reply(index, Failure(reason))
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _client(self, key: str | None) -> AsyncOpenAI:
        client = AsyncOpenAI(
            api_key=key or _NO_KEY,
            base_url=str(self._source.url),
            max_retries=self._source.retries,
            timeout=self._source.timeout_seconds,
            http_client=_TimeLimited(self._source.timeout_seconds),
        )
        client.organization = client.project = client.admin_api_key = None  # the environment may set these for OpenAI
        return client

    async def _call(self, client: AsyncOpenAI, prompt: Prompt, max_tokens: int, key: str | None) -> Reply | Failure:
        try:
            body = await _fetch_body(client, self._source, prompt, max_tokens)
        except OpenAIError as error:
            return self._failure(error, key)
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            return Failure(f"the judge's server answered without a completion: {_public(body, key)!r}")
        choice, usage = completion.choices[0], completion.usage or _Usage()
        text = (choice.text if isinstance(prompt, str) else choice.message.content) or ""
        return Reply(_remove_key(text, key), usage.prompt_tokens or 0, usage.completion_tokens or 0)

    def _failure(self, error: OpenAIError, key: str | None) -> Failure:
        match error:
            case APITimeoutError():
                return _Unreachable(f"the judge's server did not answer within {self._source.timeout_seconds:g} s")
            case APIConnectionError():
                return _Unreachable("the judge's server cannot be reached")
            case APIStatusError(status_code=status):
                detail = "" if status in _KEY_STATUS else f": {_public(error.message, key)}"
                kind = _Unreachable if status in _UNREACHABLE_STATUS else Failure
                return kind(f"the judge's server answered with status {status}{detail}")
            case _:
                return Failure(f"the request to the judge's server failed: {_public(str(error), key)}")


async def _fetch_body(client: AsyncOpenAI, source: EndpointSource, prompt: Prompt, max_tokens: int) -> str:
    """Return the body of the server's answer unparsed: the client accepts anything as a completion."""
    if isinstance(prompt, str):
        raw = await client.completions.with_raw_response.create(
            model=source.model, prompt=prompt, max_tokens=max_tokens, temperature=0
        )
        return raw.text
    turns = [cast(ChatCompletionMessageParam, message.model_dump(include={"role", "content"})) for message in prompt]
    chats = client.chat.completions.with_raw_response
    if source.reasoning:
        raw = await chats.create(
            model=source.model, messages=turns, max_completion_tokens=max_tokens + _REASONING_TOKENS
        )
    else:
        raw = await chats.create(model=source.model, messages=turns, max_tokens=max_tokens, temperature=0)
    return raw.text


def _read_key(name: str, source: EndpointSource) -> str | None:
    """Read the API key from the environment.

    Raises:
        Unavailable: code `judge_key_missing`.
    """
    if source.api_key_env is None:
        return None
    key = os.environ.get(source.api_key_env, "").strip()
    if not _KEY.fullmatch(key):
        raise Unavailable(
            f"The judge model {name!r} needs an API key in the worker's environment variable {source.api_key_env}, "
            f"which {'is not set' if not key else 'contains characters that no key has'}: set it and restart the "
            "worker.",
            code="judge_key_missing",
            param="security.judges",
        )
    return key


def _remove_key(text: str, key: str | None) -> str:
    """Remove the key, which a server may repeat."""
    return text.replace(key, "[key]") if key else text


def _public(text: str, key: str | None) -> str:
    return shorten(_remove_key(text, key))
