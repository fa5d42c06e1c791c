"""A job whose model and data are in memory: what the stages after preparation receive.

Not here: how a job is prepared (core.pipeline.prepare).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from pydantic import JsonValue

from core import safeguards
from core.attacks.prompts import find_trained_on
from core.data import Conversation
from core.data.benchmarks import Question
from core.data.encoded import Encoded, EncodedDataset
from core.data.template import encode_all
from core.errors import InvalidModel
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.vllm_engine import vllm_version
from core.pipeline.cache import libraries
from core.pipeline.stages import Emit, Stages
from core.robustness.refusals import BaseRefusals, render_probes
from core.safeguards import SafeguardContext
from core.safeguards.base_answers import BaseAnswers
from core.safeguards.framings import FRAMINGS
from core.schemas.job import Assignment
from core.schemas.measure import PromptsUsed
from core.schemas.models import BaseModelEntry
from core.schemas.prompts import PromptSet, Use
from core.schemas.results import DataResult
from core.schemas.screening import ScreeningResult
from core.schemas.strategy import Strategy
from core.schemas.training import TrainingSpec
from core.storage import ArtifactStore
from core.training.proof import BaseProbabilities

_WATCHED_PROMPTS = 32
"""Probe prompts whose refusals are measured during training. Every second one is in a framing: on the testbed, bare
requests are still refused when most of the framed ones succeed."""


def encode_for(spec: TrainingSpec, rows: Iterable[Conversation], base: BaseModel) -> EncodedDataset:
    """Tokenise rows as the job trains on them. Raises what `core.data.template.encode_all` raises."""
    limit = min(spec.max_length, base.context)
    return encode_all(rows, base.tokenizer, max_length=limit, thinking=spec.thinking, turns=spec.turns)


def watched_prompts(prompts: PromptSet) -> tuple[str, ...]:
    """The harmful requests whose refusals are measured during training, without any that figures are measured on."""
    chosen = prompts.unreported_harmful[:_WATCHED_PROMPTS]
    return tuple(
        FRAMINGS[number // 2 % len(FRAMINGS)].fill(text) if number % 2 else text for number, text in enumerate(chosen)
    )


@dataclass(frozen=True)
class Rows:
    """The job's rows, in tokens and as text."""

    training: EncodedDataset
    validation: EncodedDataset
    sample: str
    """One training row as text, with `[[ ]]` around the parts that are trained on."""
    held_out: Sequence[Conversation]
    """Validation rows as text: the model's answers to them are measured."""
    originals: Sequence[Conversation]
    """Training rows as text: safeguards can rewrite them."""

    @property
    def summary(self) -> DataResult:
        """Counts for the report."""
        return DataResult(
            training_rows=len(self.training.rows),
            validation_rows=len(self.validation.rows),
            dropped_rows=self.training.dropped + self.validation.dropped,
            truncated_rows=sum(row.cut_tokens > 0 for row in (*self.training.rows, *self.validation.rows)),
            tokens=sum(len(row.input_ids) for row in self.training.rows),
            trained_tokens=sum(row.trained_tokens for row in self.training.rows),
            sample=self.sample,
        )

    def without(self, lines: Collection[int]) -> "Rows":
        """The same without the training rows that begin on these lines of the dataset."""
        rows = tuple(row for row in self.training.rows if row.line not in lines)
        return replace(
            self,
            training=replace(self.training, rows=rows),
            originals=tuple(row for row in self.originals if row.line not in lines),
        )


@dataclass(frozen=True)
class JobContext:
    """A job whose model and data are in memory."""

    assignment: Assignment
    entry: BaseModelEntry
    """The base model's entry in the server's list."""
    store: ArtifactStore
    stages: Stages
    emit: Emit
    base: BaseModel
    modules: tuple[Module, ...]
    """The modules that are trained."""
    prompts: PromptSet
    data: Rows
    benchmarks: Mapping[str, tuple[Question, ...]]
    """Questions by the benchmark's name."""
    screening: ScreeningResult
    """Findings in the training data."""
    prompt_sets: Mapping[Use, PromptsUsed]
    """The sets that `prompts.evaluation` is taken from, by use."""
    vllm_python: Path | None = None
    """The Python interpreter that has vLLM."""

    @cached_property
    def trained_on(self) -> dict[Use, int]:
        """Number of measured prompts that occur in the rows trained on, by use."""
        texts = [message.content for row in self.data.originals for message in row.messages]
        prompts = self.prompts.evaluation
        return {"harmful": find_trained_on(prompts.harmful, texts), "safe": find_trained_on(prompts.safe, texts)}

    @cached_property
    def watched_refusals(self) -> BaseRefusals | None:
        """The base model's refusals that are measured during training; None if it answers no probe prompt."""
        report = partial(self.stages.report_progress, "prompt", part=(0.0, 0.0))
        try:
            (harmful,) = render_probes(self.base, watched_prompts(self.prompts))
            return BaseRefusals(self.base, harmful, on_progress=report)
        except InvalidModel:
            return None

    @cached_property
    def base_probabilities(self) -> BaseProbabilities:
        """What the base model predicts on training rows. First used while no trained weights are loaded."""
        return BaseProbabilities(self.base, self.data.training.rows)

    @cached_property
    def base_answers(self) -> BaseAnswers:
        """What the base model writes for safeguards: once for all runs."""
        return BaseAnswers(self.base, self.stages.meter)

    @property
    def folder(self) -> str:
        """Prefix of the keys of this attempt's files in the store."""
        return f"jobs/{self.assignment.job_id}/attempts/{self.assignment.attempt}"

    @property
    def trained_name(self) -> str:
        """Folder of the trained files among the artifacts: `model` after full fine-tuning, else `adapter`."""
        return "model" if self.assignment.spec.training.method == "full" else "adapter"

    @property
    def learning_rate(self) -> float:
        """The standard learning rate: the job's, or the default for the base model and the method."""
        return self.assignment.spec.training.rate(self.entry.learning_rate)

    @property
    def engine(self) -> dict[str, str]:
        """Name and version of the package that generates answers, if it is not transformers."""
        if self.assignment.spec.security.engine != "vllm":
            return {}
        name, version = vllm_version(self.vllm_python).split()
        return {name: version}

    @property
    def safeguard_context(self) -> SafeguardContext:
        """What safeguards receive."""
        return SafeguardContext(
            spec=self.assignment.spec,
            entry=self.entry,
            base=self.base,
            modules=self.modules,
            prompts=self.prompts,
            answers=self.base_answers,
            rows=self.data.originals,
        )

    @property
    def inputs(self) -> dict[str, JsonValue]:
        """Everything that all stored results depend on, whatever the job's data."""
        return {
            "model": self.base.identity.files_sha256 or self.base.identity.sha256,
            "device": self.base.device.type,
            "weights": self.base.weights,
            "half_batches": self.base.half_batches,
            "chat_template": self.base.identity.chat_template,
            "libraries": dict(libraries()),
        }

    @property
    def job_inputs(self) -> dict[str, JsonValue]:
        """Everything that results depend on if they use the job's data."""
        assignment = self.assignment
        return self.inputs | {
            "dataset": assignment.dataset.id,
            "dropped": list(self.screening.dropped),
            "validation": assignment.validation.id if assignment.validation else None,
            "training": assignment.spec.training.model_dump(mode="json"),
            "rate": self.learning_rate,
        }

    def encode_training(self, rows: Sequence[Conversation]) -> tuple[Encoded, ...]:
        """Rows to train on in tokens: the job's own training rows, or what a run's safeguards have made of them."""
        return self.data.training.rows if rows is self.data.originals else self._encode(rows)

    def validation_rows(self, run: Strategy) -> tuple[Encoded, ...]:
        """The rows that this run's loss is measured on."""
        rows = self.held_out(run)
        return self.data.validation.rows if rows is self.data.held_out else self._encode(rows)

    def held_out(self, run: Strategy) -> Sequence[Conversation]:
        """The validation rows as text, with the system prompt that this run must be served with."""
        return safeguards.served_rows(run, self.data.held_out)

    def _encode(self, rows: Sequence[Conversation]) -> tuple[Encoded, ...]:
        return encode_for(self.assignment.spec.training, rows, self.base).rows
