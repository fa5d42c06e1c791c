"""What a safeguard can do in a run: one class with a method for each point at which it can take effect.

Covers: the base class and what its methods receive and return. Not here: the safeguards themselves (one file each in
this folder), how those of a run are applied (core.safeguards).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel

from core.data import Conversation
from core.data.encoded import Encoded
from core.lm.full import Originals
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.safeguards.base_answers import BaseAnswers
from core.schemas.job import JobSpec
from core.schemas.models import BaseModelEntry
from core.schemas.progress import OnProgress
from core.schemas.prompts import PromptSet
from core.schemas.results import SafeguardEffect
from core.schemas.safeguards import SafeguardOptions
from core.training.kept import EndWeights
from core.training.loop import Objective, RefusalNll, Trained

Options = TypeVar("Options", bound=SafeguardOptions)


@dataclass(frozen=True)
class SafeguardContext:
    """The job that a safeguard works in."""

    spec: JobSpec
    entry: BaseModelEntry
    """The base model's entry in the server's list."""
    base: BaseModel
    modules: Sequence[Module]
    """The modules that are trained."""
    prompts: PromptSet
    answers: BaseAnswers
    """What the base model writes before training."""
    rows: Sequence[Conversation] = ()
    """The rows that are trained on, as text. From `extra_rows` on they are as safeguards have changed them."""


@dataclass(frozen=True)
class RewrittenRows:
    """All rows of a job, some of them with other answers."""

    rows: Sequence[Conversation]
    effect: SafeguardEffect


@dataclass(frozen=True, kw_only=True)
class TrainedContext(SafeguardContext):
    """The job after a run was trained and before its weights are stored."""

    trained: Trained
    originals: Originals
    """The base model's values of the trained parameters after full fine-tuning; empty for an adapter."""
    refusal_nll: RefusalNll | None
    """Measures a model's refusals; None if the base model answers no probe prompt."""


@dataclass(frozen=True)
class ExtraRows:
    """Rows that a safeguard adds to the training rows."""

    rows: tuple[Encoded, ...]
    effect: SafeguardEffect


@dataclass(frozen=True)
class ChangedLoss:
    """The loss that a safeguard makes of another one."""

    objective: Objective
    effect: SafeguardEffect | None = None


class Safeguard(Generic[Options]):
    """One safeguard of one run. A method that a subclass does not override has no effect."""

    options_class: ClassVar[type[SafeguardOptions]]
    """The options that this class implements."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def check(self, context: SafeguardContext) -> None:
        """Reject a job that this safeguard cannot work in, before anything is computed.

        Raises:
            SecureTuneError: the base model or the modules do not fit.
        """

    def inputs(self, context: SafeguardContext) -> JsonValue:
        """Everything besides the options, the data and the base model that the trained weights depend on."""

    def rewrite_rows(
        self, context: SafeguardContext, rows: Sequence[Conversation], on_progress: OnProgress
    ) -> RewrittenRows | None:
        """Other answers to the rows, from the base model, before `training_row` sees them.

        Called before anything is attached to the base model. The result must depend on the arguments only: a run that
        resumes from a checkpoint calls it again.
        """

    def training_row(self, row: Conversation) -> Conversation:
        """A row as it is trained on. Returns the same object if nothing changes."""
        return row

    def extra_rows(
        self, context: SafeguardContext, rows: Sequence[Encoded], on_progress: OnProgress
    ) -> ExtraRows | None:
        """Rows to add to `rows`; called before anything is attached to the base model."""

    def objective(self, objective: Objective, context: SafeguardContext, on_progress: OnProgress) -> ChangedLoss | None:
        """The loss to train with, given the loss without this safeguard; None if it stays as it is.

        Called before anything is attached to the base model. The loss may draw from torch's random generators, whose
        states are in every checkpoint, and must keep no state of its own.
        """

    def end_weights(self, chosen: EndWeights) -> EndWeights:
        """Which weights the run ends with, given the choice without this safeguard."""
        return chosen

    def after_training(self, context: TrainedContext, tuned: PeftModel | PreTrainedModel) -> SafeguardEffect | None:
        """Change the trained weights in place before they are stored, and report the effect."""
