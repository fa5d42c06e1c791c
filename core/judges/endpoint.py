"""A model behind a server that speaks OpenAI's API, asked many times at once.

Covers: the key, time limits, what failures are called, giving up on a server that is down. A raw prompt goes to
`completions`, a conversation to `chat/completions`. Not here: what is asked.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING

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
from core.judges.asks import Beat, Failure, Heard, Prompt, Reply, Request
from core.judges.text import in_one_line
from core.schemas.data import Message
from core.schemas.judges import EndpointSource

if TYPE_CHECKING:  # types of one method that is overridden; nothing of them is needed to run
    from httpx2._client import UseClientDefault
    from httpx2._types import AuthTypes

GIVE_UP_AFTER = 5
"""So many calls in a row, each with all its retries, that met no server: then the rest is not tried."""

_BEAT_SECONDS = 1.0
_NO_KEY = "none"
_KEY = re.compile(r"[\x21-\x7e]+")
_AWAY = {502, 503, 504}
_SECRET_STATUS = {401, 403}
_PROBE = "Reply with the word ready."
_PROBE_RETRIES = 1
_THINKING_TOKENS = 4096


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=0, ge=0)
    completion_tokens: int | None = Field(default=0, ge=0)


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Said = _Said()
    text: str | None = None


class _Completion(BaseModel):
    """What is read of a server's answer: `message` of a conversation, `text` of a raw prompt."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


@dataclass(frozen=True)
class _Away(Failure):
    """There was no server."""


class _OnTime(DefaultAsyncHttpxClient):
    """A time limit for a whole exchange: the client's own begins anew with every byte. Redirects are not followed."""

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
    """A model at an endpoint."""

    special: tuple[str, ...] = ()

    def __init__(self, name: str, source: EndpointSource) -> None:
        self._name, self._source = name, source

    @property
    def identity(self) -> str:
        """The model's name there, and a digest of where: whoever reads a report need not learn the address."""
        where = sha256(f"{self._source.url.host}:{self._source.url.port}".encode()).hexdigest()
        return f"{self._source.model} at server {where[:8]}"

    def check(self, beat: Beat, *, raw: bool) -> None:
        """Ask it something tiny, as a raw prompt or in a conversation, with one retry at most.

        Raises:
            Unavailable: code `judge_key_missing` or `judge_unavailable`.
        """
        patience = {"retries": min(self._source.retries, _PROBE_RETRIES)}
        prompt: Prompt = _PROBE if raw else (Message(role="user", content=_PROBE),)
        told: list[Reply | Failure] = []
        Endpoint(self._name, self._source.model_copy(update=patience)).ask(
            Request([prompt], max_new_tokens=8), lambda _, outcome: told.append(outcome), beat
        )
        for outcome in told:
            if isinstance(outcome, Failure):
                raise Unavailable(
                    f"The judge model {self._name!r} cannot be asked: {outcome.reason}.",
                    code="judge_unavailable",
                    param="security.judges",
                )

    def ask(self, request: Request, heard: Heard, beat: Beat) -> None:
        """See `Asks.ask`. Calls that are under way when `heard` or `beat` raises are dropped at once.

        Raises:
            Unavailable: code `judge_key_missing`.
        """
        asyncio.run(self._ask(request, heard, beat, _key(self._name, self._source)))

    def close(self) -> None:
        """Nothing is held between questions."""

    async def _ask(self, request: Request, heard: Heard, beat: Beat, key: str | None) -> None:
        waiting = iter(enumerate(request.prompts))
        flying: dict[asyncio.Task[Reply | Failure], int] = {}
        away = 0
        async with self._client(key) as client:
            try:
                while True:
                    if away < GIVE_UP_AFTER:
                        for index, prompt in islice(waiting, self._source.concurrency - len(flying)):
                            call = self._call(client, prompt, request.max_new_tokens, key)
                            flying[asyncio.create_task(call)] = index
                    if not flying:
                        break
                    done, _ = await asyncio.wait(flying, timeout=_BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        outcome = task.result()
                        away = away + 1 if isinstance(outcome, _Away) else 0
                        heard(flying.pop(task), outcome)
                    beat()
                _not_asked(waiting, heard)
            finally:
                for task in flying:
                    task.cancel()
                await asyncio.gather(*flying, return_exceptions=True)

    def _client(self, key: str | None) -> AsyncOpenAI:
        client = AsyncOpenAI(
            api_key=key or _NO_KEY,
            base_url=str(self._source.url),
            max_retries=self._source.retries,
            timeout=self._source.timeout_seconds,
            http_client=_OnTime(self._source.timeout_seconds),
        )
        client.organization = client.project = client.admin_api_key = None  # what the environment says of OpenAI's own
        return client

    async def _call(self, client: AsyncOpenAI, prompt: Prompt, most: int, key: str | None) -> Reply | Failure:
        try:
            body = await _answered(client, self._source, prompt, most)
        except OpenAIError as error:
            return self._failure(error, key)
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            return Failure(f"the judge's server answers with no completion: {_public(body, key)!r}")
        choice, usage = completion.choices[0], completion.usage or _Usage()
        text = (choice.text if isinstance(prompt, str) else choice.message.content) or ""
        return Reply(_without(text, key), usage.prompt_tokens or 0, usage.completion_tokens or 0)

    def _failure(self, error: OpenAIError, key: str | None) -> Failure:
        match error:
            case APITimeoutError():
                return _Away(f"the judge's server did not answer within {self._source.timeout_seconds:g} seconds")
            case APIConnectionError():
                return _Away("the judge's server cannot be reached")
            case APIStatusError(status_code=status):
                said = "" if status in _SECRET_STATUS else f": {_public(error.message, key)}"
                kind = _Away if status in _AWAY else Failure
                return kind(f"the judge's server answers with status {status}{said}")
            case _:
                return Failure(f"the judge's server could not be asked: {_public(str(error), key)}")


async def _answered(client: AsyncOpenAI, source: EndpointSource, prompt: Prompt, most: int) -> str:
    """The body of the server's answer, as it is: the client would take anything for a completion."""
    if isinstance(prompt, str):
        raw = await client.completions.with_raw_response.create(
            model=source.model, prompt=prompt, max_tokens=most, temperature=0
        )
        return raw.text
    turns = [_turn(message) for message in prompt]
    chats = client.chat.completions.with_raw_response
    if source.reasoning:
        raw = await chats.create(model=source.model, messages=turns, max_completion_tokens=most + _THINKING_TOKENS)
    else:
        raw = await chats.create(model=source.model, messages=turns, max_tokens=most, temperature=0)
    return raw.text


def _turn(message: Message) -> ChatCompletionMessageParam:
    match message.role:
        case "system":
            return {"role": "system", "content": message.content}
        case "user":
            return {"role": "user", "content": message.content}
        case "assistant":
            return {"role": "assistant", "content": message.content}


def _not_asked(waiting: Iterator[tuple[int, Prompt]], heard: Heard) -> None:
    for index, _ in waiting:
        heard(index, Failure(f"not asked: the judge's server failed {GIVE_UP_AFTER} times in a row before"))


def _key(name: str, source: EndpointSource) -> str | None:
    """The key from the environment, which stands nowhere else.

    Raises:
        Unavailable: code `judge_key_missing`.
    """
    if source.api_key_env is None:
        return None
    key = os.environ.get(source.api_key_env, "").strip()
    if not _KEY.fullmatch(key):
        raise Unavailable(
            f"The judge model {name!r} is asked with a key that the environment variable {source.api_key_env} should "
            "hold, and on this worker it " + ("holds none." if not key else "holds characters that no key has."),
            code="judge_key_missing",
            param="security.judges",
        )
    return key


def _without(text: str, key: str | None) -> str:
    """A server may say the key back."""
    return text.replace(key, "[key]") if key else text


def _public(text: str, key: str | None) -> str:
    return in_one_line(_without(text, key))
