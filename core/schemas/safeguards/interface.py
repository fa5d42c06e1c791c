"""What every safeguard states about itself, and which safeguards a request may name.

Not here: the safeguards, and those of one run (core.schemas.safeguards.chosen).
"""

from typing import ClassVar, Literal, NamedTuple, TypeVar

from core.schemas.base import Frozen
from core.schemas.prompts import PromptSet


class PlannedAnswers(NamedTuple):
    """Answers of the base model. Equal ones are written once for all runs of a job."""

    what: Literal["refusals", "safe answers", "rewritten rows"]
    count: int
    max_new_tokens: int
    """Limit on the length of each."""


class SafeguardOptions(Frozen):
    """Base of every safeguard's options. What other parts of the product need to know about it is here too."""

    name: ClassVar[str]
    """Name of the safeguard in a request."""
    needs_unaligned_base: ClassVar[bool] = False
    """Whether the base model's entry in the server's list must name its `unaligned_base`."""
    excludes_patience: ClassVar[bool] = False
    """Whether it decides when training ends, and so cannot be combined with `training.patience`."""

    def answers(
        self, prompts: PromptSet, *, rows: int, steps: int, framed: bool, max_new_tokens: int
    ) -> tuple[PlannedAnswers, ...] | None:
        """Return what the base model writes for this safeguard before training, if anything.

        `rows` is the number of the job's rows, `steps` that of its optimizer steps on these, `framed` whether they
        share a frame (core.data.frame), and `max_new_tokens` the limit of `security`.
        """

    @property
    def title(self) -> str:
        """Name in tables and headings, with the option that matters most."""
        return self.name

    @property
    def needs_adapter(self) -> bool:
        """Whether it works on an adapter only, and so not with the training method `full`."""
        return False

    @property
    def needs_refusals(self) -> bool:
        """Whether it needs the refusal drift, and so a base model that answers probe prompts."""
        return False

    @property
    def serving_system_prompt(self) -> str | None:
        """The system prompt that the model is evaluated with and must be served with; None for the job's own."""
        return None

    @property
    def serving_note(self) -> str | None:
        """How to serve the model, in one or two sentences for the model card; None if there is nothing to do."""
        return None


Options = TypeVar("Options", bound=SafeguardOptions)
_CLASSES: dict[str, type[SafeguardOptions]] = {}


def register(options: type[Options]) -> type[Options]:
    """Accept a safeguard in requests. Safeguards take effect in the order of registration.

    Raises:
        ValueError: another class has this name already.
    """
    if _CLASSES.setdefault(options.name, options) is not options:
        raise ValueError(f"A safeguard named {options.name!r} is already registered: choose another name")
    return options


def unregister(options: type[SafeguardOptions]) -> None:
    """Stop accepting a safeguard. For tests, which must leave the process as they found it."""
    del _CLASSES[options.name]


def accepted() -> tuple[type[SafeguardOptions], ...]:
    """The options that requests may name, in the order in which they take effect."""
    return tuple(_CLASSES.values())
