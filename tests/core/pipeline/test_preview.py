"""The process that computes previews: what it shows is what a job trains on, and its errors are answers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.catalog import TESTBED
from core.data import load
from core.data.encoded import IGNORED
from core.lm import gguf
from core.lm.load import BaseModel
from core.pipeline.context import encode_for
from core.pipeline.tokenizer_orders import answer
from core.schemas.data import ColumnMap
from core.schemas.models import FolderSource, GgufSource
from core.schemas.preview import Preview, PreviewOrder, PreviewRequest
from core.schemas.tokenizing import TokenizerAnswer, TokenizerFailed
from core.schemas.training import TrainingSpec
from core.storage.store import digest

ROWS = [
    {"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Indent it"},
        {"role": "assistant", "content": "    return a + b\n"},
        {"role": "user", "content": "And in another language"},
        {"role": "assistant", "content": "中文 🦩", "weight": 1},
    ]},
    {"messages": [
        {"role": "user", "content": "not trained"},
        {"role": "assistant", "content": "skipped", "weight": 0},
        {"role": "user", "content": "trained"},
        {"role": "assistant", "content": "kept"},
    ]},
    {"messages": [{"role": "user", "content": "think"}, {"role": "assistant", "content": "<think>hm</think>yes"}]},
    {"messages": [{"role": "user", "content": "long " * 200}, {"role": "assistant", "content": "lost"}]},
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def order(path: Path, **options: object) -> PreviewOrder:
    request = PreviewRequest.model_validate({"model": "testbed", "max_length": 128} | options)
    return PreviewOrder(path=path, columns=None, sha256=digest(path), max_rows=1000, entry=TESTBED, request=request)


def shown(order: PreviewOrder) -> Preview:
    found = answer(order).preview
    assert found is not None
    return found


def failed(order: PreviewOrder) -> TokenizerFailed:
    found = answer(order).failed
    assert found is not None
    return found


@pytest.mark.parametrize(
    "options", [{}, {"thinking": "drop"}, {"turns": "last"}, {"max_length": 32}, {"max_length": 1024}]
)
def test_a_preview_is_what_a_job_trains_on(base: BaseModel, path: Path, options: dict[str, object]) -> None:
    found = shown(order(path, **options))
    spec = TrainingSpec.model_validate({"max_length": 128} | options)
    trained = encode_for(spec, load(path, max_rows=1000), base)
    kept = [row for row in found.rows if row.trained_tokens]
    assert [[token.id for token in row.tokens] for row in kept] == [row.input_ids.tolist() for row in trained.rows]
    marks = [[token.trained for token in row.tokens] for row in kept]
    assert marks == [(row.labels != IGNORED).tolist() for row in trained.rows]
    assert found.counts.dropped_rows == trained.dropped
    assert found.counts.trained_tokens == sum(row.trained_tokens for row in trained.rows)


def test_the_end_of_turn_is_named_and_the_limit_is_the_models(base: BaseModel, path: Path) -> None:
    found = shown(order(path, max_length=131_072))
    assert (found.model, found.chat_template, found.end_of_turn) == ("testbed", "own", "<|end|>")
    assert found.max_length == base.context
    assert {row.tokens[-1].text for row in found.rows} == {"<|end|>"}


def test_warnings_are_those_of_a_job(path: Path) -> None:
    cut, whole = shown(order(path, max_length=24)), shown(order(path, max_length=1024))
    assert [warning.code for warning in cut.warnings] == ["mixed_system_prompts", "rows_truncated"]
    assert [warning.code for warning in whole.warnings] == ["mixed_system_prompts"]


def test_a_row_that_is_rejected_does_not_hide_the_others(path: Path) -> None:
    found = shown(order(path, thinking="reject"))
    assert [row.line for row in found.rejected] == [3]
    assert [row.line for row in found.rows] == [1, 2, 4]


def test_a_file_that_has_changed_is_not_shown(path: Path) -> None:
    ordered = order(path)
    path.write_text(path.read_text().replace("kept", "bent"))
    assert (failed(ordered).code, failed(ordered).unavailable) == ("file_changed", False)


def test_a_model_that_cannot_be_used_is_an_answer(path: Path, tmp_path: Path) -> None:
    gone = TESTBED.model_copy(update={"source": FolderSource(path=tmp_path / "gone")})
    found = failed(order(path).model_copy(update={"entry": gone}))
    assert (found.code, found.param, found.unavailable) == ("model_missing", "base_model", False)
    fewer = order(path).model_copy(update={"max_rows": 2})
    assert failed(fewer).code == "too_large"


def test_a_gguf_model_is_previewed_with_its_converted_copy(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    source = GgufSource(paths=(file,), cache=tmp_path / "converted")
    ordered = order(path).model_copy(update={"entry": TESTBED.model_copy(update={"source": source})})
    found = failed(ordered)
    assert (found.code, found.unavailable) == ("model_not_converted", False)
    assert "securetune models convert testbed" in found.message
    assert isinstance(TESTBED.source, FolderSource)
    copy = source.cache / f"{digest(file)}-bfloat16-{gguf._versions() or '0'}" / "model"
    shutil.copytree(TESTBED.source.path, copy)
    assert shown(ordered) == shown(order(path))


def test_columns_are_those_of_the_upload(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question;answer\n2 + 2?;4\n")
    ordered = order(path).model_copy(update={"columns": ColumnMap(prompt="question", completion="answer")})
    (row,) = shown(ordered).rows
    assert "".join(token.text for token in row.tokens if token.trained) == "4<|end|>"


def test_the_process_answers_on_stdout_only(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "core.pipeline.tokenizer_process"],
        input=order(path).model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert TokenizerAnswer.model_validate_json(done.stdout) == answer(order(path))
