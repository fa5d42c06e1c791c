"""What stages hand on, what is stored, and what a report holds. One figure is one row, everywhere.

Not here: how they are computed (the stages), how they are drawn (core.reports).
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
"""Verdicts that count in rates."""


class Change(Frozen):
    """How far a figure is from the base model's, on the prompts or rows that both have a value for."""

    value: float
    """The arm's mean less the base model's."""
    n: int
    """How many prompts or rows both have a value for."""
    low: float
    """Lower end of the 95 % interval of a paired bootstrap."""
    high: float
    """Upper end of it."""


class Figure(Frozen):
    """One measured number with its count and its 95 % interval."""

    run: str
    """`base`, or the label of a strategy."""
    suite: str
    """What was run: an attack family, `over_refusal` (safe look-alikes), `task` (the job's own rows), or a benchmark by
    its name."""
    metric: Metric
    """What was measured."""
    judge: str
    """Who decided; `none` where nobody had to."""
    value: float
    """A rate (0 to 1), mean score (harmfulness 1 to 5, others 0 to 1), mean loss (nats per token) or perplexity."""
    n: int
    """How many prompts (or rows) the value is made of."""
    undecided: int = 0
    """How many the judge could not decide, answers that are empty among them; they are in no rate."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    change: Change | None = None
    """Against the base model on the same prompts; null for the base itself."""


class Judgement(Frozen):
    """What one judge made of one answer."""

    judge: str
    """Who."""
    verdict: Verdict
    """`partial` lies between: it is no attack success, and it is over-refusal. An answer without words is `empty`, and
    `undecided` says in its reason why nothing could be decided."""
    harmfulness: float | None = None
    """1 (declines) to 5 (does it all); null where undecided, and for judges that only say yes or no."""
    score: float | None = None
    """StrongREJECT's own score, 0 to 1; null for other judges."""
    reason: str
    """Why, in the judge's words."""


class Said(Frozen):
    """One raw answer, before anybody has judged it."""

    suite: str
    """Attack family or `over_refusal`."""
    prompt: int
    """Which prompt of its suite, from 0."""
    template: str
    """Which template of the family; `plain` where there is none."""
    behaviour: str
    """What is asked for, without the attack around it: all that a judge sees beside the answer."""
    category: str | None = None
    """What it is about, in its prompt set's words."""
    sample: int = 0
    """Which of several answers to the same prompt."""
    messages: tuple[Message, ...]
    """What the model was sent last; an assistant's turn at the end was begun for it."""
    answer: str
    """What it said."""
    asked: bool = True
    """False where the prompt leaves no room for an answer in the model's context: cut, it would be another attack."""


class Answer(Said):
    """One raw answer and what the judges made of it."""

    run: str
    """Which model answered."""
    judgements: tuple[Judgement, ...]
    """One of each judge that knows such answers."""

    def by(self, judge: str) -> Judgement | None:
        """What this judge made of it."""
        return next((each for each in self.judgements if each.judge == judge), None)


class TaskAnswer(Frozen):
    """One validation row or benchmark question, and how the model did."""

    run: str
    """Which model."""
    suite: str
    """`task`, or the benchmark's name."""
    metric: Metric
    """What was measured."""
    row: int
    """Which row, from 0."""
    answer: str
    """What the model said or chose."""
    reference: str
    """What was wanted."""
    value: float
    """How right it is, 0 to 1; for a loss, nats per token."""


class CategoryRate(Frozen):
    """Attack success in one category of behaviours, over all families."""

    run: str
    """Which model."""
    category: str
    """In the prompt set's own words."""
    judge: str
    """Who decided."""
    value: float
    """Rate, 0 to 1."""
    n: int
    """Attacks that were decided."""
    undecided: int
    """Attacks that were not."""
    low: float
    """Lower end of the 95 % Wilson interval; attacks on one behaviour hang together, so it is too narrow."""
    high: float
    """Upper end of it."""


class Agreement(Frozen):
    """How far two judges agree on whether an answer complies."""

    run: str
    """On which model's answers."""
    judges: tuple[str, str]
    """Who."""
    n: int
    """Answers that both decided."""
    agree: float
    """Share of them that both call complied, or neither does."""
    kappa: float | None
    """Cohen's kappa: the same beyond chance; null where it says nothing, because a judge always says the same."""


class JudgeUse(Frozen):
    """What one judge took."""

    run: str
    """For which model's answers."""
    judge: str
    """Who."""
    identity: str
    """Which rules or weights: a version, or the model with its digest or its name at the endpoint."""
    judged: int
    """Answers it was given."""
    cached: int = 0
    """Of these, verdicts known from before."""
    undecided: int = 0
    """Of these, without a verdict."""
    prompt_tokens: int = 0
    """Tokens that it read."""
    completion_tokens: int = 0
    """Tokens that it wrote."""


class Evaluation(Frozen):
    """One model's figures and the answers they are counted from."""

    figures: tuple[Figure, ...]
    """Security, over-refusal and task figures."""
    answers: tuple[Answer, ...]
    """Raw answers."""
    tasks: tuple[TaskAnswer, ...] = ()
    """Answers to rows and questions."""
    categories: tuple[CategoryRate, ...] = ()
    """Attack success by category."""
    agreements: tuple[Agreement, ...] = ()
    """Every pair of judges."""
    judges: tuple[JudgeUse, ...] = ()
    """What judging took."""


class ModelIdentity(Frozen):
    """Which weights these are."""

    name: str
    """Name in the allow-list."""
    source: str
    """Folder or hub id with its revision."""
    sha256: str
    """Digest over the names and contents of all its files."""
    parameters: int
    """Number of parameters."""
    architecture: str
    """Class of the model."""
    chat_template: Template = "own"
    """Whether the tokenizer's own chat template was used, or securetune's plain one."""


class DataResult(Frozen):
    """What became of the rows."""

    training_rows: int
    """Rows trained on."""
    validation_rows: int
    """Rows held out or named for validation."""
    dropped_rows: int
    """Rows whose prompt alone fills `max_length`."""
    truncated_rows: int
    """Rows cut at `max_length`."""
    tokens: int
    """Tokens in the training rows."""
    trained_tokens: int
    """Tokens with a label: assistant turns with their terminators."""
    sample: str
    """One row decoded, with the trained part marked."""


class Classifier(Frozen):
    """The security feature classifier of the base model (arXiv 2410.04524, section on security features)."""

    layer: int
    """Layer whose output is read; 0 is the embedding."""
    accuracy: float
    """On held-out prompts."""
    auroc: float
    """On held-out prompts."""
    n_train: int
    """Prompts it was fit on."""
    n_test: int
    """Prompts it was scored on."""


class ModuleRobustness(Frozen):
    """What one module's change does to security and to the task. Drift: higher is more fragile."""

    module: str
    """Name in the model."""
    layer: int
    """Decoder layer, from 0."""
    type: str
    """`q`, `k`, `v`, `o`, `gate`, `up`, `down`, or the architecture's own."""
    parameters: int
    """Size of its weight."""
    feature_drift: float
    """Shift of harmful prompts along the base classifier, in units of the distance between the classes."""
    refusal_drift: float
    """Rise of the negative log-likelihood of the base model's own first answer tokens, nats per token."""
    task_gain: float
    """Fall of the loss on probe rows of the job's own data, nats per token."""
    feature_drift_spread: float
    """Standard deviation over seeds; 0 with one."""
    refusal_drift_spread: float
    """Standard deviation over seeds; 0 with one."""


class GroupRobustness(Frozen):
    """What the change of several modules at once does: of a circuit or a type in all layers, of a band of layers, or
    of a type in a band."""

    kind: UnitKind
    """What they have in common."""
    name: str
    """Such as `qk`, `q`, `layers 0-1`, or `q, layers 0-1`."""
    modules: int
    """How many they are."""
    parameters: int
    """Size of their weights together."""
    feature_drift: float
    """As of one module."""
    refusal_drift: float
    """As of one module."""
    task_gain: float
    """As of one module."""
    feature_drift_spread: float
    """Standard deviation over seeds; 0 with one."""
    refusal_drift_spread: float
    """Standard deviation over seeds; 0 with one."""


class RobustCount(Frozen):
    """How many modules of a circuit, of a type, or of a depth band, are robust."""

    kind: Literal["circuit", "type", "band"]
    """What they have in common."""
    name: str
    """Which circuit, type or band."""
    robust: int
    """Robust ones among them."""
    modules: int
    """All of them."""


class SearchStep(Frozen):
    """One evaluation of a set of modules, all moved at once."""

    phase: SearchPhase
    """Which part of the search asked."""
    size: int
    """Modules in the set."""
    added: str | None
    """Module or group tried by the local pass."""
    drift: float
    """Joint drift of the set; with a probe, of its update moved alone and stretched."""
    limit: float
    """The budget, in the same units."""
    accepted: bool
    """Whether the set stays inside the budget."""


class RobustnessResult(Frozen):
    """The robustness map and the robust subset."""

    analysis: AnalysisSpec
    """How it was measured."""
    classifier: Classifier
    """Ground to stand on."""
    usable: bool
    """False when the base model shows no separable security feature: then `robust` holds every module."""
    modules: tuple[ModuleRobustness, ...]
    """The map, in the model's order."""
    groups: tuple[GroupRobustness, ...] = ()
    """The same of circuits, types, depth bands, and types in a band, each moved as one."""
    joint_feature_drift: float
    """Feature drift when every module is moved."""
    joint_refusal_drift: float
    """Refusal drift when every module is moved."""
    joint_task_gain: float
    """Task gain when every module is moved."""
    probe_steps: tuple[int, ...] = ()
    """Steps that each seed's probe was trained for; empty under noise."""
    update_scale: float = 1.0
    """How many times as large as the probe's the update is that the search moved; 1 under noise."""
    order: tuple[str, ...]
    """Names of modules, or of groups where the analysis moves groups into the set, most robust first."""
    robust: tuple[str, ...]
    """ModsRobust: the modules that get the standard learning rate."""
    chosen: tuple[RobustCount, ...] = ()
    """Which circuits, types and depths these are."""
    trace: tuple[SearchStep, ...]
    """How the search got there."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade(document) if isinstance(document, dict) else document


class TrainedStep(Frozen):
    """One logged step."""

    step: int
    """From 1."""
    loss: float
    """Mean over the trained tokens of the step, nats per token."""
    learning_rate: float
    """Standard rate at this step."""
    validation_loss: float | None = None
    """Mean over the validation rows after this step, where it was measured, nats per token."""


class ValidatedStep(Frozen):
    """One measurement of the validation loss while training."""

    step: int
    """After which step, from 1."""
    loss: float
    """Mean over the validation rows, nats per token."""


class SecurityStep(Frozen):
    """One reading of the model's safety while training."""

    step: int
    """After which step, from 1; 0 is the base model."""
    refusal_drift: float
    """Rise of the negative log-likelihood of the base model's own first answer tokens to harmful probe prompts, nats
    per token; 0 for the base model. No prompt that figures are measured on is among them."""


class StoredFile(Frozen):
    """A file in the artifact store."""

    name: str
    """Path as its user sees it, such as `adapter/adapter_config.json`."""
    key: str
    """Key in the store."""
    sha256: str
    """Digest."""
    bytes: int
    """Size."""
    media_type: str
    """Content type."""
    gated: bool
    """Whether it may be downloaded only once the gate or an override releases it: true for weights and for every file
    that goes with them."""


class SafeguardEffect(Frozen):
    """The effect of one safeguard on the training of one run."""

    safeguard: str
    """Name of the safeguard, such as `safety_mix`."""
    summary: str
    """The effect as reports state it, such as `12 refusals mixed in, 7 of them different`."""
    counts: dict[str, int] = {}
    """What the safeguard counted, by name: `rows` and `distinct_rows` that `safety_mix` added; `updates` that
    `project_to_safe` compared and how many it `projected`."""
    by_module: dict[str, float] = {}
    """One value for each module: for `project_to_safe` the cosine between a module's update and its projection, -1 to
    1."""


class TrainingResult(Frozen):
    """One trained arm."""

    run: str
    """Label of its strategy."""
    plan: LearningPlan
    """Rates by module."""
    learning_rate: float
    """The standard rate that was used."""
    steps: int
    """Optimizer steps that were done."""
    curve: tuple[TrainedStep, ...]
    """Loss and rate along the way, at most 500 points."""
    trainable_parameters: int
    """Parameters that were trained."""
    seconds: float
    """Time spent training."""
    adapter: tuple[StoredFile, ...]
    """The adapter's files, or the whole model's after a full run."""
    validation: tuple[ValidatedStep, ...] = ()
    """Validation loss along the way; empty where `validate_every` is null."""
    security: tuple[SecurityStep, ...] = ()
    """How far refusals drifted along the way."""
    best_step: int | None = None
    """Step with the least validation loss; the weights are this step's where `patience` is given."""
    stopped_early: bool = False
    """True when `patience` ran out before the last step."""
    safeguards: tuple[SafeguardEffect, ...] = ()
    """What each safeguard changed, in the order in which they took effect; safeguards without a count are missing."""


class Report(Frozen):
    """Everything that a job measured, for people (HTML) and programs (JSON)."""

    version: Literal[2] = 2
    """Version of this layout. Reports of version 1 are upgraded when they are read."""
    job_id: str
    """The job."""
    spec: JobSpec
    """What was ordered, with every default filled in."""
    model: ModelIdentity
    """The base model."""
    dataset: DatasetRef
    """The data."""
    data: DataResult
    """What became of it."""
    prompt_set: str
    """Where the attack prompts are from."""
    figures: tuple[Figure, ...]
    """Every arm's figures."""
    categories: tuple[CategoryRate, ...] = ()
    """Every arm's attack success by category of behaviours."""
    agreements: tuple[Agreement, ...] = ()
    """Every arm's agreement between judges."""
    judges: tuple[JudgeUse, ...] = ()
    """What judging took."""
    notes: tuple[str, ...] = ()
    """What the figures cannot show, such as rates that need more prompts."""
    screening: ScreeningResult | None = None
    """What was found in the data before training; null where nothing was looked for."""
    policy: PolicyRef | None = None
    """The rules that the gate decided by."""
    gate: tuple[GateDecision, ...] = ()
    """What the gate made of every trained arm; the first is the job's own."""
    not_covered: tuple[str, ...] = ()
    """What this evaluation did not look at."""
    robustness: tuple[RobustnessResult, ...]
    """One map for each different analysis that was asked for."""
    training: tuple[TrainingResult, ...]
    """Every trained arm."""
    software: dict[str, str]
    """Versions that the figures hang on."""
    device: str
    """What they were computed on."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: object) -> object:
        return upgrade_report(document) if isinstance(document, dict) else document


class Outcome(Frozen):
    """What a finished job leaves behind."""

    artifacts: tuple[StoredFile, ...]
    """Files for the user."""
    gate: GateDecision | None = None
    """Whether the adapter may be handed out; null where nothing was trained."""
