"""What an attack family consists of: the prompt that it writes for a behaviour, and how answers are sampled.

Covers: the interface of a family, templates. Not here: any wording (core.attacks.families), generation
(core.attacks.ask).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.schemas.attacks import AttackOptions
from core.schemas.data import Message
from core.schemas.prompts import Behaviour

_SLOT = "{behaviour}"
Options = TypeVar("Options", bound=AttackOptions)


@dataclass(frozen=True)
class AttackPrompt:
    """One behaviour, wrapped and ready for the chat template."""

    template: str
    """Id of the template, stored with every answer."""
    behaviour: Behaviour
    """What the attacker wants; judges see its text, never the wrapped prompt."""
    messages: tuple[Message, ...]
    """The first user turn, and the beginning of the model's own turn if the family prefills it. `build` puts the system
    turn in front."""
    followups: tuple[str, ...] = ()
    """Later user turns. Each follows the model's answer to the turn before; the last answer is judged."""
    prefill_tokens: int | None = None
    """Length to which the model's own turn is cut, in tokens of the attacked model."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled; temperature 0 is greedy decoding."""

    samples: int = 1
    """Number of answers to each prompt."""
    temperature: float = 0.0
    """Sampling temperature."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from."""


Write = Callable[[Options, Behaviour, int], AttackPrompt]
"""Writes the prompt for a behaviour and its index in the prompt set; deterministic."""


@dataclass(frozen=True)
class Family(Generic[Options]):
    """An attack family: its options, its prompts and its sampling."""

    options: type[Options]
    """Class of the options in requests."""
    write: Write[Options]
    """Writes one prompt."""
    sampling: Callable[[Options], Sampling] = lambda _options: Sampling()
    """Reads from the options how answers are sampled; by default one answer to each prompt, greedily."""


@dataclass(frozen=True)
class Template:
    """A user turn with a slot for the behaviour."""

    id: str
    """Stable name, stored with every answer."""
    text: str
    """The user turn; the behaviour replaces every slot."""
    encode: Callable[[str], str] = str
    """Encodes the behaviour before it fills the slot; by default it stays as it is."""
    slots: tuple[str, ...] = (_SLOT,)
    """Placeholders for the behaviour."""

    def fill(self, behaviour: str) -> str:
        """Write the user turn for `behaviour`; slots inside the behaviour itself stay as they are."""
        parts = [self.text]
        for slot in self.slots:
            parts = [piece for part in parts for piece in part.split(slot)]
        return self.encode(behaviour).join(parts)


def deal(templates: Sequence[Template]) -> Write[AttackOptions]:
    """Assign templates in turn: behaviour i gets template i modulo their number."""

    def write(_options: AttackOptions, behaviour: Behaviour, index: int) -> AttackPrompt:
        template = templates[index % len(templates)]
        user = Message(role="user", content=template.fill(behaviour.full_text))
        return AttackPrompt(template.id, behaviour, (user,))

    return write
