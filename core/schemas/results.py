"""Results of the other stages, and what a report contains.

Not here: results of an evaluation (core.schemas.evaluation) and of a robustness analysis (core.schemas.robustness), how
they are computed (the stages), how they are presented (core.reports).
"""

from typing import Literal

from pydantic import model_validator

from core.schemas.base import Frozen
from core.schemas.evaluation import Agreement, CategoryRate, Figure, JudgeUse, WeightsProof
from core.schemas.gate import GateDecision
from core.schemas.job import DatasetRef, JobSpec
from core.schemas.measure import Sha256
from core.schemas.memory import WeightFormat
from core.schemas.models import Template
from core.schemas.policy import PolicyRef
from core.schemas.robustness import RobustnessResult
from core.schemas.screening import ScreeningResult
from core.schemas.training import LearningPlan
from core.schemas.upgrade import upgrade_report


class ModelIdentity(Frozen):
    """Identifies the base model and its weights."""

    name: str
    """Name in the server's list of models."""
    source: str
    """Folder of the model, its hub id with the revision, or its GGUF file."""
    sha256: str
    """SHA-256 over the names and contents of all files of the model, in hex; of a GGUF model, of the GGUF file."""
    files_sha256: str | None = None
    """SHA-256 over the names and contents of all files that a GGUF file was converted into, in hex; null for models
    that are used as they are."""
    parameters: int
    """Number of parameters of the model."""
    architecture: str
    """Class name of the model in transformers."""
    chat_template: Template = "own"
    """Whether the tokenizer's own chat template is used (`own`) or securetune's plain one (`plain`)."""


class PrecisionUsed(Frozen):
    """The number format that a job computed in. Trained weights and optimizer are float32 in every case."""

    weights: WeightFormat
    """Number format of the base weights. Training, answers and all measurements are computed in it; for 4-bit weights
    (`nf4`), in bfloat16."""
    speedup: float | None = None
    """How many times as fast bfloat16 was as float32 in a self-test on the job's CPU; null if it was not measured,
    because the order names a precision, the job ran on a GPU, the CPU has no instructions for bfloat16, or the model is
    small."""

    @property
    def sentence(self) -> str:
        """Return what was computed in which format."""
        weights = "4-bit weights (nf4), in bfloat16" if self.weights == "nf4" else self.weights
        measured = (
            "" if self.speedup is None else f" (on this CPU, bfloat16 is {self.speedup:g} times as fast as float32)"
        )
        return f"Computed in {weights}{measured}; trained weights and optimizer in float32"


class DataResult(Frozen):
    """How the dataset was split and tokenised."""

    training_rows: int
    """Number of rows trained on."""
    validation_rows: int
    """Number of validation rows, held out or from the validation dataset."""
    dropped_rows: int
    """Number of rows left out because their prompt alone has `max_length` tokens or more."""
    truncated_rows: int
    """Number of rows cut off at `max_length` tokens."""
    tokens: int
    """Number of tokens in the training rows."""
    trained_tokens: int
    """Number of tokens with a label: assistant turns including their end-of-turn tokens."""
    sample: str
    """One training row as text, with the labelled parts in double square brackets."""


class TrainedStep(Frozen):
    """One logged training step."""

    step: int
    """Number of the optimizer step, from 1."""
    loss: float
    """Mean loss over the step's labelled tokens, nats per token."""
    learning_rate: float
    """Standard learning rate at this step."""
    validation_loss: float | None = None
    """Mean loss over the validation rows after this step, nats per token; null if not measured at this step."""


class ValidatedStep(Frozen):
    """One measurement of the validation loss during training."""

    step: int
    """Number of optimizer steps done before the measurement."""
    loss: float
    """Mean loss over the validation rows, nats per token."""


class SecurityStep(Frozen):
    """One measurement of the model's refusals during training."""

    step: int
    """Number of optimizer steps done before the measurement; 0 is the base model."""
    refusal_drift: float
    """Increase of the negative log-likelihood of the base model's own first answer tokens to harmful probe prompts,
    every second one in a framing such as a persona or a story, nats per token; 0 for the base model. The probe prompts
    are not those that figures are measured on."""


class StoredFile(Frozen):
    """One file in the artifact store."""

    name: str
    """Path of the file as users see it, such as `adapter/adapter_config.json`."""
    key: str
    """Key of the file in the store."""
    sha256: str
    """SHA-256 of the content, in hex."""
    bytes: int
    """Size of the file in bytes."""
    media_type: str
    """Media type for downloads."""
    gated: bool
    """Whether downloads need the gate's release or an override: true for weights and for every file that belongs to
    them."""


class SafeguardEffect(Frozen):
    """The effect of one safeguard on the training of one run."""

    safeguard: str
    """Name of the safeguard, such as `safety_mix`."""
    summary: str
    """The effect in words, such as `12 refusals mixed in, 7 of them different`."""
    counts: dict[str, int] = {}
    """Numbers by name. `safety_mix` reports `rows` and `distinct_rows` that it added; `project_to_safe` reports the
    number of `updates` and how many it `projected`; `kl_to_base` reports the `refusals` and `safe_answers`
    that it draws from; `self_distill` reports how many answers it has `rewritten`, and how many it kept, by reason
    (`kept_...`); `keep_safe_weights` the `step` of the kept weights."""
    values: dict[str, float] = {}
    """Values by name. `scale_update` reports its `factor`, and the scaled model's `refusal_drift` in nats per token;
    `keep_safe_weights` the `refusal_drift` of the kept weights; `average_weights` the base model's share in the
    average, `base_share`, 0 to 1."""
    by_module: dict[str, float] = {}
    """One value for each module. `project_to_safe` reports the cosine between a module's update and its projection, -1
    to 1."""


class TrainingResult(Frozen):
    """One trained run."""

    run: str
    """Label of the run."""
    plan: LearningPlan
    """Learning-rate factors by module."""
    learning_rate: float
    """Standard learning rate that was used."""
    steps: int
    """Number of optimizer steps that were done."""
    curve: tuple[TrainedStep, ...]
    """Loss and learning rate during training, at most 500 points."""
    trainable_parameters: int
    """Number of parameters that were trained."""
    seconds: float
    """Training time in seconds."""
    adapter: tuple[StoredFile, ...]
    """Files of the adapter, or of the whole model after full fine-tuning."""
    validation: tuple[ValidatedStep, ...] = ()
    """Validation loss during training; empty if `validate_every` is null."""
    security: tuple[SecurityStep, ...] = ()
    """Refusal drift during training."""
    best_step: int | None = None
    """Step with the lowest validation loss; if `patience` is set, the stored weights are from this step."""
    end_step: int | None = None
    """Step that the stored weights are from: the last one done, the best one if `patience` is set, or the one that
    `keep_safe_weights` kept. Null in reports of versions that did not record it."""
    stopped_early: bool = False
    """Whether the `patience` of the training or of `keep_safe_weights` ended training before the last step."""
    safeguards: tuple[SafeguardEffect, ...] = ()
    """Effects of the run's safeguards, in the order in which they took effect. A safeguard without a measured effect is
    not listed."""


class Report(Frozen):
    """Everything that a job measured, as JSON for programs. The HTML report is rendered from it."""

    version: Literal[2] = 2
    """Version of this layout. Reports of version 1 are upgraded when they are read."""
    job_id: str
    """Id of the job."""
    spec: JobSpec
    """The job's specification with all defaults filled in."""
    model: ModelIdentity
    """Identity of the base model."""
    dataset: DatasetRef
    """The dataset that was trained on."""
    data: DataResult
    """Row and token counts of the data after splitting and tokenising."""
    prompt_set: str
    """Name of the prompt set that attacks are built from."""
    figures: tuple[Figure, ...]
    """Figures of the base model and of every run."""
    categories: tuple[CategoryRate, ...] = ()
    """Attack success by category of harmful prompts, for every model."""
    agreements: tuple[Agreement, ...] = ()
    """Agreement between judges, for every model."""
    judges: tuple[JudgeUse, ...] = ()
    """The work that each judge did."""
    notes: tuple[str, ...] = ()
    """What the figures cannot show, such as rates that need more prompts."""
    screening: ScreeningResult | None = None
    """Findings in the data before training; null if the data was not screened."""
    policy: PolicyRef | None = None
    """The policy that the gate applied."""
    gate: tuple[GateDecision, ...] = ()
    """The gate's decision on every trained run; the first is the job's own."""
    not_covered: tuple[str, ...] = ()
    """What this evaluation did not measure, one sentence each."""
    robustness: tuple[RobustnessResult, ...]
    """One robustness map for each different analysis of the job's runs."""
    training: tuple[TrainingResult, ...]
    """Every trained run; the first is the job's own."""
    weights: tuple[WeightsProof, ...] = ()
    """For every trained run, proof that its stored weights are others than the base model's; empty in reports of
    versions that did not measure it."""
    software: dict[str, str]
    """Versions that the figures depend on, by name."""
    device: str
    """The device that the job ran on."""
    precision: PrecisionUsed | None = None
    """The number format that the job computed in; null in reports of versions that did not record it."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade_report(document) if isinstance(document, dict) else document


class JudgedWeights(Frozen):
    """Trained weights and the decision about them."""

    sha256: Sha256
    """Digest of the weights: over name, type, shape and bytes of every tensor, in the order of names."""
    gate: GateDecision
    """The gate's decision about the run that trained them."""


class Outcome(Frozen):
    """What a finished job returns."""

    artifacts: tuple[StoredFile, ...]
    """The job's files, in the artifact store."""
    gate: GateDecision | None = None
    """The gate's decision on the job's own run; null for a job that trains nothing."""
    weights: tuple[JudgedWeights, ...] = ()
    """The weights of every run, the job's own first; empty for a job that trains nothing."""
