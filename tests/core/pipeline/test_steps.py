"""The steps between pipeline and stages: which rows are used, what a result hangs on, what is warned about."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.attacks.prompts import choose
from core.catalog import TESTBED
from core.errors import InvalidDataset, TrainingFailed
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.pipeline.context import Prepared, Rows
from core.pipeline.screen import read
from core.pipeline.stages import Stages
from core.pipeline.steps import encode as encode_rows
from core.pipeline.steps import load_base, robustness, training
from core.schemas.analysis import AnalysisSpec, NoisePerturbation, SwapPerturbation
from core.schemas.job import Assignment, JobSpec
from core.schemas.models import BaseModelEntry, FolderSource
from core.schemas.results import RobustnessResult
from core.schemas.screening import ScreeningPolicy, ScreeningResult
from core.schemas.strategy import MlLrStrategy
from core.storage import ArtifactStore
from tests.core.helpers import conversations, tiny
from tests.core.jobs import SPEC, Heard, assign, upload


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def encode(assignment: Assignment, store: ArtifactStore, base: BaseModel, heard: Heard | None = None) -> Rows:
    """The step, inside its stage."""
    emit = heard or Heard()
    stages = Stages(store, assignment.job_id, emit, ("dataset",))
    rows = read(store, assignment.dataset)
    return stages.run("dataset", lambda: encode_rows(assignment, rows, store, base, stages))


def with_training(**fields: object) -> JobSpec:
    return SPEC.model_copy(update={"training": SPEC.training.model_copy(update=fields)})


def texts(rows: Rows, base: BaseModel) -> tuple[list[str], list[str]]:
    def decoded(part: object) -> list[str]:
        assert isinstance(part, tuple)
        return [str(base.tokenizer.decode(row.input_ids.tolist())) for row in part]

    return decoded(rows.training.rows), decoded(rows.validation.rows)


def test_answers_end_where_a_trained_turn_does(base: BaseModel, tmp_path: Path) -> None:
    """Also where the model's own configuration names another token."""
    end = base.tokenizer.eos_token_id
    assert load_base(TESTBED, "cpu").stop_ids == [end]
    tiny("llama").save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    entry = BaseModelEntry(name="small", source=FolderSource(path=tmp_path))
    assert load_base(entry, "cpu").stop_ids == [7, end]


def test_a_part_of_the_rows_is_held_out(base: BaseModel, store: ArtifactStore) -> None:
    dataset = upload(store, conversations(40))
    rows = encode(assign(with_training(validation_split=0.25), dataset), store, base)
    training, validation = texts(rows, base)
    assert (len(training), len(validation)) == (30, 4)  # ten were held out, four are scored
    assert not set(training) & set(validation)
    assert (rows.summary.training_rows, rows.summary.validation_rows) == (30, 4)
    assert rows.summary.trained_tokens < rows.summary.tokens == sum(len(row.input_ids) for row in rows.training.rows)
    assert rows.summary.sample.count("[[") == 1
    assert training == texts(encode(assign(with_training(validation_split=0.25), dataset), store, base), base)[0]


def test_named_validation_rows_are_used_and_all_others_trained_on(base: BaseModel, store: ArtifactStore) -> None:
    dataset, named = upload(store, conversations(12)), upload(store, conversations(6, "arithmetic.jsonl"))
    rows = encode(assign(SPEC, dataset, validation=named), store, base)
    training, validation = texts(rows, base)
    assert (len(training), len(validation)) == (12, 4)
    assert all("####" in text for text in validation)
    assert not any("####" in text for text in training)


def test_rows_that_are_too_long_are_counted_and_warned_about(base: BaseModel, store: ArtifactStore) -> None:
    short = [[("user", "Hello"), ("assistant", "Good morning " * 60)]] * 6
    long = [[("user", "word " * 80), ("assistant", "No.")]] * 3
    heard = Heard()
    rows = encode(assign(with_training(max_length=32), upload(store, short + long)), store, base, heard)
    assert rows.summary.dropped_rows + rows.summary.training_rows + rows.summary.validation_rows == 9
    assert rows.summary.dropped_rows == 3
    assert rows.summary.truncated_rows == 6
    (warning,) = heard.warnings
    assert warning.code == "prompts_too_long"
    assert warning.message.startswith("Rows left out because their prompt has 32 tokens or more: 3.")
    quiet = Heard()
    encode(assign(SPEC, upload(store, short)), store, base, quiet)
    assert quiet.warnings == []


def test_the_context_is_a_limit_too(base: BaseModel, store: ArtifactStore) -> None:
    dataset = upload(store, [[("user", "Hello"), ("assistant", "word " * 3000)]] * 4)
    rows = encode(assign(with_training(max_length=100_000), dataset), store, base)
    assert {len(row.input_ids) for row in rows.training.rows} == {base.context}


def test_rows_that_cannot_be_trained_on_end_the_job(base: BaseModel, store: ArtifactStore) -> None:
    long = upload(store, [[("user", "word " * 80), ("assistant", "No.")]] * 4)
    spec = with_training(max_length=32)
    with pytest.raises(TrainingFailed) as caught:
        encode(assign(spec, long), store, base)
    assert caught.value.code == "no_trainable_rows"
    with pytest.raises(TrainingFailed, match="Of the validation rows") as caught:
        encode(assign(spec, upload(store, [[("user", "Hi"), ("assistant", "Hello")]]), validation=long), store, base)
    assert caught.value.code == "no_trainable_rows"


def test_one_row_is_too_few_to_hold_one_out(base: BaseModel, store: ArtifactStore) -> None:
    with pytest.raises(InvalidDataset) as caught:
        encode(assign(SPEC, upload(store, conversations(1))), store, base)
    assert caught.value.code == "too_few_rows"


@pytest.fixture
def prepared(base: BaseModel, modules: tuple[Module, ...], store: ArtifactStore) -> Prepared:
    assignment, emit = assign(SPEC, upload(store, conversations(8))), Heard()
    rows = encode(assignment, store, base)
    prompts = choose(SPEC.security, base.folder)
    stages = Stages(store, "j", emit, ("robustness",))
    nothing = ScreeningResult(policy=ScreeningPolicy(), rows=8, checks=(), findings=(), seconds=0.0)
    return Prepared(assignment, TESTBED, store, stages, emit, base, modules, prompts, rows, {}, nothing)


def test_a_result_hangs_on_model_data_and_rate(prepared: Prepared, store: ArtifactStore) -> None:
    here = prepared.assignment
    cheaper = TESTBED.model_copy(update={"learning_rate": 5e-4})
    weights = replace(prepared.base, identity=prepared.base.identity.model_copy(update={"sha256": "0" * 64}))

    def other(assignment: Assignment) -> Prepared:
        return replace(prepared, assignment=assignment)

    jobs = [
        prepared,
        replace(prepared, entry=cheaper),
        replace(prepared, base=weights),
        other(assign(SPEC, upload(store, conversations(9)))),
        other(assign(SPEC, here.dataset, validation=upload(store, conversations(3)))),
        other(assign(with_training(seed=1), here.dataset)),
    ]
    found = [job.job_inputs for job in jobs]
    assert all(one != another for index, one in enumerate(found) for another in found[:index])
    assert other(assign(SPEC, here.dataset, job_id="job_" + "f" * 24, attempt=7)).job_inputs == found[0]


def test_the_jobs_own_rate_comes_first(prepared: Prepared) -> None:
    assert prepared.learning_rate == TESTBED.learning_rate
    own = assign(with_training(learning_rate=0.5), prepared.assignment.dataset)
    assert replace(prepared, assignment=own).learning_rate == 0.5


def test_a_probe_that_does_no_harm_is_warned_about(prepared: Prepared) -> None:
    # At this rate the update is lost in rounding: every reading is the base's own.
    heard = Heard()
    still = assign(with_training(learning_rate=1e-12), prepared.assignment.dataset)
    job = replace(prepared, assignment=still, modules=prepared.modules[:2], emit=heard)
    found = robustness(job, AnalysisSpec(perturbation=SwapPerturbation(steps=1), probes=8))
    assert found.joint_refusal_drift == 0.0
    assert set(found.robust) == {module.name for module in job.modules}
    assert [warning.code for warning in heard.warnings] == ["no_drift"]
    heard.events.clear()
    broken = robustness(job, AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8))
    assert broken.joint_refusal_drift != 0.0
    assert ("no_drift" in {warning.code for warning in heard.warnings}) == (broken.joint_refusal_drift <= 0)


def always(result: RobustnessResult) -> Callable[..., RobustnessResult]:
    """A stage store that holds this result, whatever is asked of it."""

    def stored(*_: object, **__: object) -> RobustnessResult:
        return result

    return stored


def test_a_map_that_tells_no_unit_from_another_is_warned_about(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    job = replace(prepared, modules=prepared.modules[:4], emit=heard)
    own = AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8, unit="module")
    real = robustness(job, own)
    alike = [row.model_copy(update={"refusal_drift": 0.5}) for row in real.modules]
    first = real.trace[0].model_copy(update={"drift": 2.0})
    flat = real.model_copy(update={"modules": tuple(alike), "trace": (first, *real.trace[1:])})
    heard.events.clear()

    monkeypatch.setattr(Stages, "stored", always(flat))
    assert robustness(job, own) == flat
    (warning,) = heard.warnings
    assert warning.code == "no_spread"
    assert "chance" in warning.message


@pytest.mark.parametrize(("drift", "warned"), [(0.49, ["no_break"]), (0.5, [])])
def test_a_probe_that_is_too_short_to_break_anything_is_warned_about(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, drift: float, warned: list[str]
) -> None:
    heard = Heard()
    job = replace(prepared, modules=prepared.modules[:4], emit=heard)
    own = AnalysisSpec(perturbation=SwapPerturbation(steps=2), probes=8, unit="module")
    real = robustness(job, own)
    apart = [row.model_copy(update={"refusal_drift": float(number)}) for number, row in enumerate(real.modules)]
    trace = (real.trace[0].model_copy(update={"drift": drift}), *real.trace[1:])
    read = real.model_copy(update={"modules": tuple(apart), "trace": trace})
    heard.events.clear()

    monkeypatch.setattr(Stages, "stored", always(read))
    robustness(job, own)
    assert [warning.code for warning in heard.warnings] == warned
    assert all(f"{drift:.2f} nats" in warning.message for warning in heard.warnings)


def test_a_map_without_a_robust_module_and_a_ratio_of_nothing_train_nothing(prepared: Prepared) -> None:
    own = AnalysisSpec(perturbation=NoisePerturbation(relative_norm=3.0, seeds=1), probes=8)
    found = robustness(replace(prepared, modules=prepared.modules[:2]), own).model_copy(update={"robust": ()})
    with pytest.raises(TrainingFailed, match="no module is robust and the ratio is 0") as caught:
        training(prepared, MlLrStrategy(ratio=0, analysis=own), {own: found})
    assert (caught.value.code, caught.value.param) == ("nothing_to_train", "strategy")
