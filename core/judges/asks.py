"""One small interface to whatever model a judge asks: prompts in, replies and their cost out.

Not here: the two kinds of models (endpoint, local), what is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.schemas.data import Message

Prompt = tuple[Message, ...] | str
"""A conversation, which the model's chat template writes; or text that is continued as it is, control tokens too."""


@dataclass(frozen=True)
class Request:
    """Prompts, and how they are to be answered: always greedily."""

    prompts: Sequence[Prompt]
    max_new_tokens: int
    """Length of a reply."""
    cut: bool = False
    """Whether a prompt that is too long for a local model loses its beginning; else it is not answered."""


@dataclass(frozen=True)
class Reply:
    """What a model said, and its cost; 0 tokens where its server does not tell."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """Why there is no reply, or none that can be read."""

    reason: str


Heard = Callable[[int, Reply | Failure], None]
"""Told once of each prompt by its index, as soon as there is something; may raise to stop."""
Beat = Callable[[], None]
"""Called at least about once a second while a server is waited for, and at every token of a local model; may raise to
stop."""


class Asks(Protocol):
    """A model that can be asked."""

    @property
    def identity(self) -> str:
        """Which model this is."""
        ...

    @property
    def special(self) -> tuple[str, ...]:
        """Control tokens of its tokenizer, where they are known."""
        ...

    def ask(self, request: Request, heard: Heard, beat: Beat) -> None:
        """Put the prompts to it and tell `heard`, in the caller's thread and in any order."""
        ...

    def close(self) -> None:
        """Let go of what it holds; it may be asked again."""
        ...
