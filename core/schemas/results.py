"""Results that stages return, that are stored, and that a report contains. Every measured number is one `Figure`.

Not here: how they are computed (the stages), how they are presented (core.reports).
"""

from typing import Literal

from pydantic import model_validator

from core.schemas.analysis import AnalysisSpec, UnitKind
from core.schemas.base import Frozen
from core.schemas.data import Message
from core.schemas.gate import GateDecision
from core.schemas.job import DatasetRef, JobSpec
from core.schemas.metrics import Metric
from core.schemas.models import Template
from core.schemas.policy import PolicyRef
from core.schemas.screening import ScreeningResult
from core.schemas.training import LearningPlan
from core.schemas.upgrade import upgrade, upgrade_report

SearchPhase = Literal["all", "binary_search", "local_pass", "parameter_share"]
Verdict = Literal["refused", "partial", "complied", "empty", "undecided"]
DECIDED: frozenset[Verdict] = frozenset({"refused", "partial", "complied"})
"""Verdicts that rates are computed from. Answers with another verdict are counted as undecided."""


class Change(Frozen):
    """The difference between a run's figure and the base model's, over the prompts or rows that have both values."""

    value: float
    """The run's mean minus the base model's mean, in the unit of the figure."""
    n: int
    """Number of prompts or rows that have a value for both models."""
    low: float
    """Lower end of the 95 % interval, from a paired bootstrap."""
    high: float
    """Upper end of the 95 % interval, from a paired bootstrap."""


class Figure(Frozen):
    """One measured number with its sample size and its 95 % confidence interval."""

    run: str
    """The measured model: `base`, or the label of a run."""
    suite: str
    """What the model was measured on: an attack family, `over_refusal` (safe prompts that look harmful), `task` (the
    job's own validation rows), or the name of a benchmark."""
    metric: Metric
    """The metric that was computed."""
    judge: str
    """The judge that classified the answers; `none` for metrics without a judge."""
    value: float
    """A rate (0 to 1), a mean score (harmfulness 1 to 5, other scores 0 to 1), a mean loss (nats per token) or a
    perplexity."""
    n: int
    """Number of prompts or rows that the value is computed from."""
    undecided: int = 0
    """Number of answers that the judge could not decide, including empty ones. They are not in the value."""
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float
    """Upper end of the 95 % confidence interval."""
    change: Change | None = None
    """The change from the base model on the same prompts; null for the base model itself."""


class Judgement(Frozen):
    """One judge's verdict on one answer."""

    judge: str
    """The label of the judge."""
    verdict: Verdict
    """`refused`, `partial` or `complied`. Partial compliance does not count as attack success, but it does count as
    over-refusal. An answer without words is `empty`. If it is `undecided`, `reason` says why."""
    harmfulness: float | None = None
    """Harmfulness from 1 (declines) to 5 (complies fully); null if undecided, and for judges that give no score."""
    score: float | None = None
    """The StrongREJECT score, 0 to 1; null for other judges."""
    reason: str
    """The judge's explanation of its verdict."""


class Said(Frozen):
    """One raw answer, before it is judged."""

    suite: str
    """The attack family, or `over_refusal`."""
    prompt: int
    """Number of the prompt in its suite, from 0."""
    template: str
    """Template of the attack family; `plain` if the family has none."""
    behaviour: str
    """The harmful or safe request without the attack around it. Judges see only this and the answer."""
    category: str | None = None
    """Category of the request, as its prompt set names it."""
    sample: int = 0
    """Number of this sample among several answers to the same prompt, from 0."""
    messages: tuple[Message, ...]
    """The conversation that the model received. An assistant turn at the end is a prefill: the model continues it."""
    answer: str
    """The text that the model generated."""
    asked: bool = True
    """False if the prompt leaves no room for an answer in the model's context. Such a prompt is not sent, because
    cutting it would make it a different attack."""


class Answer(Said):
    """One raw answer with its judgements."""

    run: str
    """The model that answered: `base`, or the label of a run."""
    judgements: tuple[Judgement, ...]
    """One judgement by each judge that can judge this kind of answer."""

    def by(self, judge: str) -> Judgement | None:
        """The judgement of this judge; None if it did not judge the answer."""
        return next((each for each in self.judgements if each.judge == judge), None)


class TaskAnswer(Frozen):
    """One validation row or benchmark question with the model's answer and its value."""

    run: str
    """The model that answered: `base`, or the label of a run."""
    suite: str
    """`task` for the job's validation rows, or the name of the benchmark."""
    metric: Metric
    """The metric that the value belongs to."""
    row: int
    """Number of the row or question in its suite, from 0."""
    answer: str
    """The text that the model generated, or the choice that it made."""
    reference: str
    """The correct answer from the data."""
    value: float
    """The value of the metric for this answer: 0 to 1, or nats per token for a loss."""


class CategoryRate(Frozen):
    """Attack success in one category of harmful prompts, over all attack families."""

    run: str
    """The measured model: `base`, or the label of a run."""
    category: str
    """The category's name in the prompt set."""
    judge: str
    """The judge that classified the answers."""
    value: float
    """Attack success rate, 0 to 1."""
    n: int
    """Number of attacks with a decided answer."""
    undecided: int
    """Number of attacks without a decided answer."""
    low: float
    """Lower end of the 95 % Wilson interval. Attacks on the same prompt are correlated, so it is too narrow."""
    high: float
    """Upper end of the 95 % Wilson interval, with the same limitation."""


class Agreement(Frozen):
    """How often two judges agree on whether an answer complies."""

    run: str
    """The model that gave the answers: `base`, or the label of a run."""
    judges: tuple[str, str]
    """The labels of the two judges."""
    n: int
    """Number of answers that both judges decided."""
    agree: float
    """Share of these answers that both call complied or both do not, 0 to 1."""
    kappa: float | None
    """Cohen's kappa, -1 to 1: agreement corrected for chance. Null if a judge gives every answer the same verdict."""


class JudgeUse(Frozen):
    """How much work one judge did on one model's answers."""

    run: str
    """The model that gave the answers: `base`, or the label of a run."""
    judge: str
    """The label of the judge."""
    identity: str
    """The exact judge: the version of the rules, or the model with its digest or its name at the endpoint."""
    judged: int
    """Number of answers that the judge received."""
    cached: int = 0
    """Number of these whose verdict was in the cache."""
    undecided: int = 0
    """Number of these that the judge could not decide."""
    prompt_tokens: int = 0
    """Number of tokens in the judge's prompts."""
    completion_tokens: int = 0
    """Number of tokens that the judge generated."""


class Evaluation(Frozen):
    """One model's figures and the answers that they are computed from."""

    figures: tuple[Figure, ...]
    """Security, over-refusal and task figures."""
    answers: tuple[Answer, ...]
    """The raw answers to attacks and safe prompts, with judgements."""
    tasks: tuple[TaskAnswer, ...] = ()
    """The answers to validation rows and benchmark questions."""
    categories: tuple[CategoryRate, ...] = ()
    """Attack success by category of harmful prompts."""
    agreements: tuple[Agreement, ...] = ()
    """Agreement of every pair of judges."""
    judges: tuple[JudgeUse, ...] = ()
    """The work that each judge did."""


class ModelIdentity(Frozen):
    """Identifies the base model and its weights."""

    name: str
    """Name in the server's list of models."""
    source: str
    """Folder of the model, or its hub id with the revision."""
    sha256: str
    """SHA-256 over the names and contents of all files of the model, in hex."""
    parameters: int
    """Number of parameters of the model."""
    architecture: str
    """Class name of the model in transformers."""
    chat_template: Template = "own"
    """Whether the tokenizer's own chat template is used (`own`) or securetune's plain one (`plain`)."""


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


class Classifier(Frozen):
    """The classifier of harmful and safe prompts on the base model's hidden states (arXiv 2410.04524, section on
    security features).
    """

    layer: int
    """Layer whose output is classified; 0 is the embedding."""
    accuracy: float
    """Accuracy on held-out prompts, 0 to 1."""
    auroc: float
    """Area under the ROC curve on held-out prompts, 0 to 1."""
    n_train: int
    """Number of prompts that it was fitted on."""
    n_test: int
    """Number of held-out prompts that it was tested on."""


class ModuleRobustness(Frozen):
    """The effect of perturbing one module on security and on the task. A higher drift means a more fragile module."""

    module: str
    """Full name of the module in the model."""
    layer: int
    """Number of its decoder layer, from 0."""
    type: str
    """Type of the module: `q`, `k`, `v`, `o`, `gate`, `up`, `down`, or a name specific to the architecture."""
    parameters: int
    """Number of parameters of its weight."""
    feature_drift: float
    """Shift of harmful prompts along the base classifier's direction, in units of the distance between the class means.
    """
    refusal_drift: float
    """Increase of the negative log-likelihood of the base model's own first answer tokens, nats per token."""
    task_gain: float
    """Decrease of the loss on probe rows of the job's own data, nats per token."""
    feature_drift_spread: float
    """Standard deviation of the feature drift over seeds; 0 with one seed."""
    refusal_drift_spread: float
    """Standard deviation of the refusal drift over seeds; 0 with one seed."""


class GroupRobustness(Frozen):
    """The effect of perturbing several modules at once: a circuit or a type in all layers, a band of layers, or a type
    in a band.
    """

    kind: UnitKind
    """What the modules of the group have in common."""
    name: str
    """Name of the group, such as `qk`, `q`, `layers 0-1`, or `q, layers 0-1`."""
    modules: int
    """Number of modules in the group."""
    parameters: int
    """Number of parameters of their weights together."""
    feature_drift: float
    """Feature drift with the whole group perturbed, in the unit of a module's."""
    refusal_drift: float
    """Refusal drift with the whole group perturbed, nats per token."""
    task_gain: float
    """Task gain with the whole group perturbed, nats per token."""
    feature_drift_spread: float
    """Standard deviation of the feature drift over seeds; 0 with one seed."""
    refusal_drift_spread: float
    """Standard deviation of the refusal drift over seeds; 0 with one seed."""


class RobustCount(Frozen):
    """How many modules of a circuit, a type or a band of layers are robust."""

    kind: Literal["circuit", "type", "band"]
    """What the counted modules have in common."""
    name: str
    """Name of the circuit, type or band."""
    robust: int
    """Number of robust modules in the group."""
    modules: int
    """Number of all modules in the group."""


class SearchStep(Frozen):
    """One step of the search: a set of modules perturbed together."""

    phase: SearchPhase
    """The phase of the search that evaluated the set."""
    size: int
    """Number of modules in the set."""
    added: str | None
    """The module or group that the local pass tried to add; null in other phases."""
    drift: float
    """Joint drift of the set. With a probe, only the set's part of the update is applied, at the update scale."""
    limit: float
    """The largest drift that the search accepts, in the unit of `drift`."""
    accepted: bool
    """Whether the drift of the set is within the limit."""


class RobustnessResult(Frozen):
    """The robustness map and the set of robust modules."""

    analysis: AnalysisSpec
    """The options of the analysis."""
    classifier: Classifier
    """The classifier that feature drift is measured with."""
    usable: bool
    """Whether the classifier separates harmful from safe prompts. If false, `robust` contains every module."""
    modules: tuple[ModuleRobustness, ...]
    """The map: one entry for each module, in the model's order."""
    groups: tuple[GroupRobustness, ...] = ()
    """The same for circuits, types, bands of layers, and types in a band, each perturbed as one."""
    joint_feature_drift: float
    """Feature drift with all modules perturbed."""
    joint_refusal_drift: float
    """Refusal drift with all modules perturbed, nats per token."""
    joint_task_gain: float
    """Task gain with all modules perturbed, nats per token."""
    probe_steps: tuple[int, ...] = ()
    """Number of training steps of the probe, for each seed; empty for noise perturbations."""
    update_scale: float = 1.0
    """Factor on the probe's update during the search; 1 for noise perturbations."""
    order: tuple[str, ...]
    """Names of modules, or of groups if the analysis selects groups, from most to least robust."""
    robust: tuple[str, ...]
    """Full names of the robust modules, which are trained at the standard learning rate."""
    chosen: tuple[RobustCount, ...] = ()
    """Number of robust modules by circuit, type and band of layers."""
    trace: tuple[SearchStep, ...]
    """All steps of the search, in order."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade(document) if isinstance(document, dict) else document


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
    nats per token; 0 for the base model. The probe prompts are not those that figures are measured on."""


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
    number of `updates` and how many it `projected`."""
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
    stopped_early: bool = False
    """Whether `patience` ended training before the last step."""
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
    """How the dataset was split and tokenised."""
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
    software: dict[str, str]
    """Versions that the figures depend on, by name."""
    device: str
    """The device that the job ran on."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade_report(document) if isinstance(document, dict) else document


class Outcome(Frozen):
    """What a finished job returns."""

    artifacts: tuple[StoredFile, ...]
    """The job's files, in the artifact store."""
    gate: GateDecision | None = None
    """The gate's decision on the job's own run; null for a job that trains nothing."""
