"""A job whose model and data are in memory: what every later step works on.

Not here: how it gets there (core.pipeline.steps, core.pipeline).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from core.data import Conversation
from core.data.batches import EncodedDataset, encode_all
from core.data.benchmarks import Question
from core.data.template import Encoded
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.pipeline.software import software
from core.pipeline.stages import Emit, Stages
from core.safeguards import runs
from core.schemas.job import Assignment
from core.schemas.models import BaseModelEntry
from core.schemas.prompts import PromptSet
from core.schemas.results import DataResult
from core.schemas.screening import ScreeningResult
from core.schemas.strategy import Strategy
from core.storage import ArtifactStore


@dataclass(frozen=True)
class Rows:
    """Rows ready to be trained and scored on."""

    training: EncodedDataset
    validation: EncodedDataset
    summary: DataResult
    held_out: Sequence[Conversation] = ()
    """Validation rows as they were read: they are asked too."""
    originals: Sequence[Conversation] = ()
    """Training rows as they were read; kept only where an arm is trained on other words of them."""

    def without(self, lines: Collection[int]) -> "Rows":
        """The same, not trained on the rows that begin on these lines."""
        training = self.training.without(lines)
        counted = {
            "training_rows": len(training.rows),
            "truncated_rows": training.truncated + self.validation.truncated,
            "tokens": training.tokens,
            "trained_tokens": training.trained_tokens,
        }
        return replace(
            self,
            training=training,
            summary=self.summary.model_copy(update=counted),
            originals=tuple(row for row in self.originals if row.line not in lines),
        )


@dataclass(frozen=True)
class Prepared:
    """A job whose model and data are in memory: what every later step works on."""

    assignment: Assignment
    entry: BaseModelEntry
    store: ArtifactStore
    stages: Stages
    emit: Emit
    base: BaseModel
    modules: tuple[Module, ...]
    prompts: PromptSet
    data: Rows
    benchmarks: Mapping[str, tuple[Question, ...]]
    screening: ScreeningResult
    """What was found in the training data."""

    @property
    def folder(self) -> str:
        """Where this attempt's files are kept in the store."""
        return f"jobs/{self.assignment.job_id}/attempts/{self.assignment.attempt}"

    @property
    def trained_name(self) -> str:
        """What the job trains, as its files are called."""
        return "model" if self.assignment.spec.training.method == "full" else "adapter"

    @property
    def learning_rate(self) -> float:
        """The standard rate: the job's, or else what the base model's own makes it."""
        return self.assignment.spec.training.rate(self.entry.learning_rate)

    @property
    def inputs(self) -> dict[str, JsonValue]:
        """What every result hangs on."""
        return {
            "model": self.base.identity.sha256,
            "device": self.base.device.type,
            "weights": self.base.weights,
            "chat_template": self.base.identity.chat_template,
            "software": dict(software()),
        }

    @property
    def job_inputs(self) -> dict[str, JsonValue]:
        """What a result that has seen the job's data hangs on."""
        assignment = self.assignment
        return self.inputs | {
            "dataset": assignment.dataset.id,
            "dropped": list(self.screening.dropped),
            "validation": assignment.validation.id if assignment.validation else None,
            "training": assignment.spec.training.model_dump(mode="json"),
            "rate": self.learning_rate,
        }

    def training_rows(self, run: Strategy) -> tuple[Encoded, ...]:
        """What this arm is trained on."""
        if run.safeguards.safe_template is None:
            return self.data.training.rows
        return self._encoded(runs.as_trained(self.data.originals))

    def validation_rows(self, run: Strategy) -> tuple[Encoded, ...]:
        """What this arm's loss is measured on."""
        if run.safeguards.safe_template is None:
            return self.data.validation.rows
        return self._encoded(self.held_out(run))

    def held_out(self, run: Strategy) -> Sequence[Conversation]:
        """Validation rows as this arm is asked them."""
        template = run.safeguards.safe_template
        return self.data.held_out if template is None else tuple(runs.as_served(template, self.data.held_out))

    def _encoded(self, rows: Iterable[Conversation]) -> tuple[Encoded, ...]:
        limit = min(self.assignment.spec.training.max_length, self.base.context)
        return encode_all(rows, self.base.tokenizer, max_length=limit).rows
