"""The work of a job is counted without torch and without the model. That a real job then does it: test_run.py."""

from collections.abc import Sequence

import pytest

from core.catalog import TESTBED
from core.data import preview
from core.errors import TrainingFailed
from core.pipeline.tokenizer_orders import answer
from core.pipeline.workload import count_work
from core.schemas.job import DatasetRef, JobInputs, JobSpec
from core.schemas.safeguards import KlToBase, Safeguards, SafetyMix, SelfDistill
from core.schemas.strategy import UniformStrategy
from core.schemas.workload import PlannedWork, Workload, WorkloadOrder
from core.storage import ArtifactStore
from tests.core.helpers import conversations
from tests.core.jobs import SPEC, upload, with_training


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def dataset(store: ArtifactStore) -> DatasetRef:
    return upload(store, conversations(40, "instructions.jsonl"))


def order(
    store: ArtifactStore, dataset: DatasetRef, spec: JobSpec, validation: DatasetRef | None = None
) -> WorkloadOrder:
    inputs = JobInputs(spec=spec, dataset=dataset, validation=validation)
    return WorkloadOrder(inputs=inputs, store=store.root, max_rows=1000, entry=TESTBED)


def work_of(found: Workload, stage: str) -> Sequence[PlannedWork]:
    return [each for each in found.work if each.stage == stage]


def test_micro_batches_are_more_passes_with_less_padding(store: ArtifactStore, dataset: DatasetRef) -> None:
    whole, small = (
        count_work(order(store, dataset, with_training(steps=None, epochs=1, batch_size=8, micro_batch_size=size)))
        for size in (None, 2)
    )
    assert whole.runs[0].steps == small.runs[0].steps == 5, "36 rows, 4 are held out"
    (train, *_), (parts, *_) = work_of(whole, "training"), work_of(small, "training")
    assert (train.calls, parts.calls) == (5, 18)
    assert whole.data.tokens <= parts.amount < train.amount


def test_steps_beyond_those_that_are_simulated_are_like_them(store: ArtifactStore, dataset: DatasetRef) -> None:
    short, long = (
        count_work(order(store, dataset, with_training(steps=steps, batch_size=8))) for steps in (2000, 8000)
    )
    assert long.runs[0].tokens == 4 * short.runs[0].tokens


def test_a_large_file_is_assumed_to_be_like_its_beginning(
    store: ArtifactStore, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = count_work(order(store, dataset, SPEC))
    assert whole.data.all_rows
    monkeypatch.setattr(preview, "MAX_COUNTED_ROWS", 20)
    part = count_work(order(store, dataset, SPEC))
    assert not part.data.all_rows
    assert (part.data.rows, part.data.training_rows) == (40, whole.data.training_rows)
    assert part.data.tokens == pytest.approx(whole.data.tokens, rel=0.3)
    assert part.data.tokens != whole.data.tokens
    assert part.runs[0].steps == whole.runs[0].steps


def test_safety_mix_adds_rows_to_its_run_and_answers_to_its_training(store: ArtifactStore, dataset: DatasetRef) -> None:
    mixed = UniformStrategy(label="mixed", safeguards=Safeguards(SafetyMix(share=0.5, framings=1)))
    training = SPEC.training.model_copy(update={"steps": None, "epochs": 2.0, "batch_size": 9})
    found = count_work(order(store, dataset, SPEC.model_copy(update={"compare": (mixed,), "training": training})))
    assert {run.run: (run.rows, run.steps) for run in found.runs} == {"ml_lr": (36, 8), "mixed": (72, 16)}
    answers = {each.run: each.calls for each in work_of(found, "training") if each.work == "answer"}
    assert answers.keys() == {"mixed"}
    assert answers["mixed"] > 2 * 16, "each harmful probe prompt twice, and the look-alikes"


def test_answers_that_safeguards_need_are_counted_with_their_own_limits(store: ArtifactStore) -> None:
    rows = [[("system", "Be brief."), *((m.role, m.content) for m in row.messages)] for row in conversations(40)]
    own, replayed, stronger = (
        UniformStrategy(label=label, safeguards=Safeguards(options))
        for label, options in (
            ("own", SelfDistill(max_new_tokens=32)),
            ("replayed", KlToBase()),
            ("stronger", KlToBase(weight=2)),
        )
    )
    found = count_work(
        order(store, upload(store, rows), SPEC.model_copy(update={"compare": (own, replayed, stronger)}))
    )
    answers = {each.run: each for each in work_of(found, "training") if each.work == "answer"}
    assert (answers["own"].calls, answers["own"].amount) == (36, 36 * 32)
    calls = answers["replayed"].calls
    assert calls == 2 * 4 * 6 * KlToBase().safety_rows, (
        "four times what 6 steps draw, of harmful prompts and of safe ones"
    )
    assert answers["replayed"].amount == answers["replayed"].calls * 128
    assert "stronger" not in answers, "it uses those of the run before"


def test_validation_rows_of_their_own(store: ArtifactStore, dataset: DatasetRef) -> None:
    own = upload(store, conversations(7, "arithmetic.jsonl"))
    spec = SPEC.model_copy(update={"quality": SPEC.quality.model_copy(update={"max_rows": 5})})
    found = count_work(order(store, dataset, spec, validation=own))
    assert (found.data.training_rows, found.data.validation_rows) == (40, 5)


def test_an_order_that_would_fail_says_why(store: ArtifactStore) -> None:
    long = upload(store, [[("user", "long " * 400), ("assistant", "lost")] for _ in range(3)])
    with pytest.raises(TrainingFailed) as caught:
        count_work(order(store, long, with_training(max_length=64)))
    assert caught.value.code == "no_trainable_rows"
    failed = answer(order(store, long, with_training(max_length=64))).failed
    assert failed is not None
    assert (failed.code, failed.param, failed.unavailable) == ("no_trainable_rows", "training.max_length", False)
