"""Answers read back from Parquet are the same."""

import json
from collections.abc import Sequence
from pathlib import Path

from pyarrow import parquet

from core.reports.parquet import answers_parquet, task_answers_parquet
from core.schemas.data import Message
from core.schemas.evaluation import Answer, Evaluation, Judgement, TaskAnswer
from testbed.report import evaluation


def test_answers_are_read_back_unchanged(evaluations: Sequence[Evaluation], tmp_path: Path) -> None:
    first, *others = evaluations
    odd = first.answers[0].model_copy(
        update={
            "answer": 'tab\t, quote ", \u6f22\u5b57, \U0001f600, \x00 and\nlines',
            "sent": False,
            "sample": 3,
            "messages": (Message(role="user", content="a"), Message(role="assistant", content="")),
            "judgements": (
                Judgement(judge="a", verdict="undecided", reason=""),
                Judgement(judge="b", verdict="complied", harmfulness=4.5, score=0.25, reason="r"),
            ),
        }
    )
    nobody = odd.model_copy(update={"judgements": (), "category": None})
    wanted = [first.model_copy(update={"answers": (odd, nobody, *first.answers)}), *others]
    path = tmp_path / "answers.parquet"
    answers_parquet(wanted, path)
    table = parquet.read_table(path)
    assert table.column_names == [
        *("run", "suite", "prompt", "template", "behaviour", "category"),
        *("sample", "messages", "answer", "sent", "judgements"),
    ]
    found = [Answer.model_validate_json(json.dumps(row)) for row in table.to_pylist()]
    assert found == [answer for each in wanted for answer in each.answers]


def test_task_answers_are_read_back_unchanged(evaluations: Sequence[Evaluation], tmp_path: Path) -> None:
    path = tmp_path / "task_answers.parquet"
    task_answers_parquet(evaluations, path)
    found = [TaskAnswer.model_validate(row) for row in parquet.read_table(path).to_pylist()]
    assert found == [answer for each in evaluations for answer in each.tasks]
    assert len(found) == 6


def test_many_answers_are_written_in_compressed_groups(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    many = evaluation("base", ["refused"] * 2500)
    answers_parquet(iter([many]), path)
    file = parquet.ParquetFile(path)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [1000, 1000, 500]
    assert {group.column(number).compression for group in groups for number in range(group.num_columns)} == {"ZSTD"}


def test_no_answers_give_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    path.write_text("what was there before")
    answers_parquet([], path)
    table = parquet.read_table(path)
    assert (table.num_rows, table.num_columns) == (0, 11)


def test_columns_are_the_fields(evaluations: Sequence[Evaluation], tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    answers_parquet(evaluations, path)
    assert set(parquet.read_table(path).column_names) == set(Answer.model_fields)
    task_answers_parquet(evaluations, path)
    assert set(parquet.read_table(path).column_names) == set(TaskAnswer.model_fields)
