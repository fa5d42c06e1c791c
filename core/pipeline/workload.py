"""Counts the work of a job: with the tokenizer of its model and the code that runs the job, and without torch.

Not here: the process in which this runs (core.pipeline.tokenizer_process), how long the work takes
(core.orders.estimate).
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from core.attacks.ask import build_suites
from core.attacks.prompts import choose_prompts
from core.data import Conversation
from core.data.encoded import Encoded, EncodedDataset
from core.data.frame import find_frame
from core.data.order import batches_from, micro_batches, padded_tokens
from core.data.preview import read_bounded
from core.data.rows import Rows
from core.data.tables import only_valid
from core.data.template import RowEncoder, end_of_turn
from core.errors import InvalidInput, TrainingFailed
from core.lm.files import fetch
from core.lm.reading import context_of, read_config
from core.lm.tokenizer import load_tokenizer
from core.modelfiles.shape import read_shape
from core.pipeline.advise import advise
from core.pipeline.inputs import hold_out, load_prompt_sets
from core.quality.tasks import estimate_size, needs_answers, tasks_for
from core.robustness.expected import count_units, expect_measurements
from core.schemas.analysis import AnalysisSpec, NoisePerturbation
from core.schemas.events import Warned
from core.schemas.job import JobInputs
from core.schemas.memory import ModelShape
from core.schemas.prompts import PromptSet
from core.schemas.quality import LmEval, MultipleChoice, QualityTask
from core.schemas.safeguards import PlannedAnswers, SafetyMix, mixed_rows
from core.schemas.speeds import Work, WorkMethod
from core.schemas.state import Stage
from core.schemas.strategy import Strategy
from core.schemas.training import TrainingSpec
from core.schemas.workload import DataSize, PlannedWork, RunSize, Workload, WorkloadOrder
from core.storage import ArtifactStore, check_digest

_USUAL_TYPES = frozenset({"q", "k", "v", "o", "gate", "up", "down"})
"""Module types of most models, for one whose weights are not here yet."""
_ROUTER = "router"
_SIMULATED_STEPS = 2000
"""Steps whose padding is counted; that of further ones is assumed to be like it."""


def count_work(order: WorkloadOrder) -> Workload:
    """Count the work of a job.

    Raises:
        InvalidInput, TrainingFailed, Unavailable: the model's tokenizer or its chat template, or a file that the order
            names, cannot be used; or no row can be trained on.
    """
    inputs, store = order.inputs, ArtifactStore(order.store)
    spec = inputs.spec
    folder = fetch(order.entry, weights=False)
    config = read_config(order.entry, folder)
    tokenizer = load_tokenizer(order.entry, folder, config)
    end_of_turn(tokenizer)  # a template without one fails the job
    limit = min(spec.training.max_length, context_of(config))
    encoder = RowEncoder(tokenizer, max_length=limit, thinking=spec.training.thinking, turns=spec.training.turns)
    rows = _Rows.read(order, store, encoder)
    prompts = choose_prompts(spec.security, folder, load_prompt_sets(inputs, store))
    suites = build_suites(prompts.evaluation, spec.security, tokenizer)
    answers, generated = sum(suite.size for suite in suites), sum(suite.generated for suite in suites)
    shape = _find_shape(folder)
    types = {each.type for each in shape.maps} - {_ROUTER} if shape else _USUAL_TYPES
    plan = _Plan(inputs, prompts, rows, int(config.get_text_config().num_hidden_layers), frozenset(types))
    return Workload(
        data=rows.size,
        max_length=limit,
        runs=tuple(plan.size_of(run) for run in spec.runs),
        answers=answers,
        work=tuple(plan.whole(answers=answers, generated=generated)),
        shape=shape,
        warnings=tuple(rows.advise(spec.training)),
    )


def _find_shape(folder: Path) -> ModelShape | None:
    """The sizes of a model; None if its weights are not here, as those of a model on the hub that no job has used."""
    try:
        found = read_shape(folder)
    except OSError:
        return None
    return found if isinstance(found, ModelShape) else None


@dataclass(frozen=True)
class _Rows:
    """The rows of a job. Of a large file, the first rows stand for the others, so some are in `training` repeatedly."""

    training: tuple[Encoded, ...]
    validation: tuple[Encoded, ...]
    originals: Sequence[Conversation]
    held_out: Sequence[Conversation]
    size: DataSize

    @classmethod
    def read(cls, order: WorkloadOrder, store: ArtifactStore, encoder: RowEncoder) -> "_Rows":
        dataset = order.inputs.dataset
        path = store.path(dataset.key)
        check_digest(path, dataset.sha256)
        found, all_rows = read_bounded(only_valid(Rows(path, dataset.columns, max_rows=order.max_rows)))
        total = len(found) if all_rows else dataset.summary.rows
        originals, held_out = hold_out(order.inputs, list(islice(cycle(found), total)) if found else found, store)
        training, validation = _Tokenised(encoder, originals), _Tokenised(encoder, held_out)
        if not training.rows or not validation.rows:
            raise TrainingFailed(
                "No row is left to train on, or none for validation: all are dropped or rejected. "
                "GET /datasets/{id}/preview shows why.",
                code="no_trainable_rows",
                param="training.max_length",
            )
        size = DataSize(
            rows=total,
            all_rows=all_rows,
            training_rows=len(training.rows),
            validation_rows=len(validation.rows),
            tokens=sum(len(row.input_ids) for row in training.rows),
            trained_tokens=sum(row.trained_tokens for row in training.rows),
            longest=max(len(row.input_ids) for row in training.rows),
            truncated_rows=sum(row.cut_tokens > 0 for row in (*training.rows, *validation.rows)),
            dropped_rows=training.dropped + validation.dropped,
            rejected_rows=training.rejected + validation.rejected,
        )
        return cls(tuple(training.rows), tuple(validation.rows), originals, held_out, size)

    def advise(self, spec: TrainingSpec) -> Iterator[Warned]:
        """What the job would warn about; of a large file only what its beginning shows."""
        if self.size.all_rows:
            yield from advise(spec, self.originals, self.held_out, EncodedDataset(self.training, 0))


class _Tokenised:
    """Conversations in tokens; each different one is tokenised once."""

    def __init__(self, encoder: RowEncoder, conversations: Sequence[Conversation]) -> None:
        self.rows: list[Encoded] = []
        self.dropped = self.rejected = 0
        known: dict[int, tuple[Encoded, ...] | None] = {}
        for each in conversations:
            if id(each) not in known:
                known[id(each)] = _encode(encoder, each)
            encoded = known[id(each)]
            if encoded is None:
                self.rejected += 1
                continue
            usable = [row for row in encoded if row.trained_tokens]
            self.rows += usable
            self.dropped += len(encoded) - len(usable)


def _encode(encoder: RowEncoder, conversation: Conversation) -> tuple[Encoded, ...] | None:
    """The rows of a conversation in tokens; None if a job would fail on it."""
    try:
        return tuple(encoder.encode([conversation]))
    except InvalidInput:
        return None


@dataclass(frozen=True)
class _Plan:
    """What a job does, from its order."""

    inputs: JobInputs
    prompts: PromptSet
    rows: _Rows
    layers: int
    types: frozenset[str]
    """Module types of the model."""

    def size_of(self, run: Strategy) -> RunSize:
        """The size of a training run."""
        rows = self._rows_of(run)
        spec = self.inputs.spec.training_of(run)
        _, tokens = count_passes(rows, spec)
        return RunSize(run=run.label, rows=len(rows), steps=spec.total_steps(len(rows)), tokens=round(tokens))

    def whole(self, *, answers: int, generated: int) -> Iterator[PlannedWork]:
        """All work of the job, stage by stage. `answers` are reported, `generated` includes those to earlier turns."""
        spec, dataset = self.inputs.spec, self.inputs.dataset
        yield from _stage("screening", ("screen", dataset.summary.rows, dataset.summary.characters))
        yield from _stage("base_model", ("load", 1, 1))
        yield from _stage("dataset", ("tokenise", len(self.rows.originals), self._tokens))
        if checks := self.inputs.policy.policy.screening.model_checks:
            count = len(checks)
            yield from _stage("model_screening", ("read", count * self._count, count * self._tokens))
        evaluation = [*self._evaluation(answers, generated)]
        yield from _stage("before", *evaluation, engine=spec.security.engine)
        if spec.security.measure_noise:
            yield from _stage("noise", *evaluation, engine=spec.security.engine)
        for analysis in spec.analyses:
            yield from self._analysis(analysis)
        yield from self._trainings(spec.runs)
        for run in spec.runs:
            yield from _stage("after", *evaluation, run=run.label, engine=spec.security.engine)
        yield from _stage("report")

    @property
    def _count(self) -> int:
        return len(self.rows.training)

    @property
    def _tokens(self) -> int:
        return self.rows.size.tokens

    def _rows_of(self, run: Strategy) -> Sequence[Encoded]:
        """The rows of a run. Rows that a safeguard adds are not known yet, so other rows stand for them."""
        mix = run.safeguards.get(SafetyMix)
        added = mixed_rows(self._count, mix.share) if mix else 0
        return (*self.rows.training, *islice(cycle(self.rows.training), added))

    def _evaluation(self, answers: int, generated: int) -> Iterator[tuple[Work, int, float]]:
        """The work of measuring one model."""
        security, quality = self.inputs.spec.security, self.inputs.spec.quality
        yield "answer", generated, generated * security.max_new_tokens
        verdicts = answers * security.model_judges
        yield "judge", verdicts, verdicts
        validation = self.rows.validation
        yield "read", len(validation), sum(len(row.input_ids) for row in validation)
        tasks = tasks_for(quality, self.inputs.benchmarks)
        rows = self.rows.held_out[: quality.max_answers] if needs_answers(tasks) else ()
        answered = sum(not row.whole for row in rows)
        yield "answer_rows", answered, answered * quality.max_new_tokens
        for task in tasks:
            yield _questions(task)

    def _analysis(self, analysis: AnalysisSpec) -> Iterator[PlannedWork]:
        spec = self.inputs.spec.training
        types = self.types if spec.lora.targets == "all" else spec.lora.targets
        measurements = expect_measurements(analysis, count_units(self.layers, types, analysis.bands))
        work: list[tuple[Work, int, float]] = [("analyse", measurements, measurements * analysis.size)]
        perturbation = analysis.perturbation
        if not isinstance(perturbation, NoisePerturbation):
            probe = spec.for_probe(perturbation, seed=analysis.seed, rows=self._count)
            passes, tokens = count_passes(self.rows.training, probe)
            work.append(("train", passes * perturbation.seeds, tokens * perturbation.seeds))
        yield from _stage("robustness", *work, method=spec.method)

    def _trainings(self, runs: Sequence[Strategy]) -> Iterator[PlannedWork]:
        written: set[PlannedAnswers] = set()
        for run in runs:
            needed = self._answers_for(run)
            yield from self._training(run, needed - written)
            written |= needed

    def _answers_for(self, run: Strategy) -> set[PlannedAnswers]:
        """What the base model writes for the run's safeguards, at most."""
        rows, spec = self.rows.originals, self.inputs.spec
        steps, length = spec.training.total_steps(len(rows)), spec.security.max_new_tokens
        framed = bool(len(run.safeguards)) and find_frame(rows) is not None
        return {
            answers
            for each in run.safeguards
            for answers in each.answers(self.prompts, rows=len(rows), steps=steps, framed=framed, max_new_tokens=length)
            or ()
        }

    def _training(self, run: Strategy, answers: Set[PlannedAnswers]) -> Iterator[PlannedWork]:
        spec = self.inputs.spec.training_of(run)
        rows, validation = self._rows_of(run), self.rows.validation
        passes, tokens = count_passes(rows, spec)
        work: list[tuple[Work, int, float]] = [("train", passes, tokens)]
        if spec.validate_every:
            times = -(-spec.total_steps(len(rows)) // spec.validate_every)
            size = sum(len(row.input_ids) for row in validation)
            work.append(("read", times * len(validation), times * size))
        calls = sum(each.count for each in answers)
        work.append(("answer", calls, sum(each.count * each.max_new_tokens for each in answers)))
        yield from _stage("training", *work, run=run.label, method=spec.method, engine="transformers")


def count_passes(rows: Sequence[Encoded], spec: TrainingSpec) -> tuple[int, float]:
    """The number of forward and backward passes of a run, and of the tokens in them, with padding."""
    if not (total := spec.total_steps(len(rows))):
        return 0, 0.0
    steps = min(total, _SIMULATED_STEPS)
    batches = islice(batches_from(0, rows, spec.batch_size, seed=spec.seed, by_length=spec.group_by_length), steps)
    parts = [padded_tokens(part) for chosen in batches for part in micro_batches(chosen, spec.micro_batch_size)]
    return round(len(parts) * total / steps), sum(parts) * total / steps


def _questions(task: QualityTask) -> tuple[Work, int, float]:
    match task:
        case MultipleChoice(max_questions=count):
            return "question", count, count
        case LmEval():
            return "harness", (count := estimate_size(task)), count
        case _:
            return "question", 0, 0


def _stage(
    stage: Stage,
    *work: tuple[Work, int, float],
    run: str | None = None,
    method: WorkMethod | None = None,
    engine: WorkMethod | None = None,
) -> Iterator[PlannedWork]:
    """The work of one stage, without what is not done at all, and with the rest of the stage."""
    methods = {"train": method, "answer": engine}
    for kind, calls, amount in work:
        if calls and amount:
            yield PlannedWork(stage=stage, run=run, work=kind, calls=calls, amount=amount, method=methods.get(kind))
    yield PlannedWork(stage=stage, run=run, work="other", calls=1, amount=1)
