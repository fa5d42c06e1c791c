"""Preparing a job: what is rejected early, which rows are trained on, and what is warned about."""

from pathlib import Path

import pytest

from core.catalog import TESTBED
from core.errors import InvalidDataset, InvalidInput, TrainingFailed
from core.lm.load import BaseModel
from core.pipeline.context import JobContext, Rows
from core.pipeline.prepare import check_job, load_base
from core.pipeline.stages import Stages
from core.schemas.models import BaseModelEntry, FolderSource
from core.schemas.strategy import FreezeLayersStrategy, LayerNumbers, ModulesStrategy, Strategy
from core.storage import ArtifactStore
from tests.core.helpers import conversations, tiny
from tests.core.jobs import SPEC, RecordedEvents, assign, encoded_rows, upload, with_training


def texts(rows: Rows, base: BaseModel) -> tuple[list[str], list[str]]:
    def decoded(part: object) -> list[str]:
        assert isinstance(part, tuple)
        return [str(base.tokenizer.decode(row.input_ids.tolist())) for row in part]

    return decoded(rows.training.rows), decoded(rows.validation.rows)


def test_generation_stops_at_the_end_of_turn_token(base: BaseModel, tmp_path: Path, store: ArtifactStore) -> None:
    """Also where the model's own configuration names another token."""
    end = base.tokenizer.eos_token_id
    stages = Stages(store, "job_a", RecordedEvents(), ("base_model",))
    assert load_base(TESTBED, "cpu", stages).stop_ids == [end]
    tiny("llama").save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    entry = BaseModelEntry(name="small", source=FolderSource(path=tmp_path))
    assert load_base(entry, "cpu", stages).stop_ids == [7, end]


def test_some_rows_are_held_out(base: BaseModel, store: ArtifactStore) -> None:
    dataset = upload(store, conversations(40))
    rows = encoded_rows(assign(with_training(validation_split=0.25), dataset), store, base)
    training, validation = texts(rows, base)
    assert (len(training), len(validation)) == (30, 4)  # ten were held out, four are scored
    assert not set(training) & set(validation)
    assert (rows.summary.training_rows, rows.summary.validation_rows) == (30, 4)
    assert rows.summary.trained_tokens < rows.summary.tokens == sum(len(row.input_ids) for row in rows.training.rows)
    assert rows.summary.sample.count("[[") == 1
    assert training == texts(encoded_rows(assign(with_training(validation_split=0.25), dataset), store, base), base)[0]


def test_with_a_validation_dataset_all_rows_are_trained_on(base: BaseModel, store: ArtifactStore) -> None:
    dataset, named = upload(store, conversations(12)), upload(store, conversations(6, "arithmetic.jsonl"))
    rows = encoded_rows(assign(SPEC, dataset, validation=named), store, base)
    training, validation = texts(rows, base)
    assert (len(training), len(validation)) == (12, 4)
    assert all("####" in text for text in validation)
    assert not any("####" in text for text in training)


def test_rows_that_are_too_long_are_counted_and_warned_about(base: BaseModel, store: ArtifactStore) -> None:
    short = [[("user", "Hello"), ("assistant", "Good morning " * 60)]] * 6
    long = [[("user", "word " * 80), ("assistant", "No.")]] * 3
    recorded = RecordedEvents()
    rows = encoded_rows(assign(with_training(max_length=32), upload(store, short + long)), store, base, recorded)
    assert rows.summary.dropped_rows + rows.summary.training_rows + rows.summary.validation_rows == 9
    assert rows.summary.dropped_rows == 3
    assert rows.summary.truncated_rows == 6
    warnings = {warning.code: warning.message for warning in recorded.warnings}
    assert set(warnings) == {"prompts_too_long", "rows_truncated", "validation_rows_in_training"}
    assert warnings["prompts_too_long"].startswith("3 rows are left out because their prompt has 32 tokens or more.")
    quiet = RecordedEvents()
    encoded_rows(assign(SPEC, upload(store, short)), store, base, quiet)
    assert [warning.code for warning in quiet.warnings] == ["few_rows_many_epochs", "validation_rows_in_training"]


def test_the_context_length_limits_rows_too(base: BaseModel, store: ArtifactStore) -> None:
    dataset = upload(store, [[("user", "Hello"), ("assistant", "word " * 3000)]] * 4)
    rows = encoded_rows(assign(with_training(max_length=100_000), dataset), store, base)
    assert {len(row.input_ids) for row in rows.training.rows} == {base.context}


def test_a_dataset_without_trainable_rows_fails_the_job(base: BaseModel, store: ArtifactStore) -> None:
    long = upload(store, [[("user", "word " * 80), ("assistant", "No.")]] * 4)
    spec = with_training(max_length=32)
    with pytest.raises(TrainingFailed) as caught:
        encoded_rows(assign(spec, long), store, base)
    assert caught.value.code == "no_trainable_rows"
    short = upload(store, [[("user", "Hi"), ("assistant", "Hello")]])
    with pytest.raises(TrainingFailed, match="Of the validation rows") as caught:
        encoded_rows(assign(spec, short, validation=long), store, base)
    assert caught.value.code == "no_trainable_rows"


def test_a_single_row_is_rejected(base: BaseModel, store: ArtifactStore) -> None:
    with pytest.raises(InvalidDataset) as caught:
        encoded_rows(assign(SPEC, upload(store, conversations(1))), store, base)
    assert caught.value.code == "too_few_rows"


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (ModulesStrategy(label="mine", full_rate=("model.nowhere",)), "unknown_module"),
        (FreezeLayersStrategy(layers=LayerNumbers(first=0, last=99)), "no_such_layers"),
    ],
)
@pytest.mark.parametrize("field", ["strategy", "compare"])
def test_a_run_with_unknown_modules_or_layers_is_rejected_early(
    prepared: JobContext, run: Strategy, code: str, field: str
) -> None:
    spec = SPEC.model_copy(update={field: run if field == "strategy" else (run,)})
    assignment = assign(spec, prepared.assignment.dataset)
    with pytest.raises(InvalidInput) as caught:
        check_job(assignment, prepared.safeguard_context, RecordedEvents())
    assert caught.value.code == code
