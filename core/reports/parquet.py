"""Writes raw answers with their judgements as Parquet, one row for each answer, for pandas, DuckDB and similar tools.

Rows are written in groups, so memory does not grow with the number of answers. Not here: answers as JSON lines
(core.pipeline.report), figures computed from them (core.attacks.count).
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from core.schemas.evaluation import Answer, Evaluation, TaskAnswer

_GROUP = 1000
"""Rows in memory at a time."""
_text, _count, _number = pa.string(), pa.int32(), pa.float64()
_turn = pa.struct([("role", _text), ("content", _text)])
_judgement = pa.struct(
    [("judge", _text), ("verdict", _text), ("harmfulness", _number), ("score", _number), ("reason", _text)]
)


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name == "category") for name, kind in columns.items()])


ANSWERS = _schema(
    run=_text, suite=_text, prompt=_count, template=_text, behaviour=_text, category=_text, sample=_count,
    messages=pa.list_(_turn), answer=_text, sent=pa.bool_(), judgements=pa.list_(_judgement),
)  # fmt: skip
"""Columns of raw answers: the fields of core.schemas.evaluation.Answer."""
TASK_ANSWERS = _schema(
    run=_text, suite=_text, metric=_text, row=_count, answer=_text, reference=_text, value=_number
)  # fmt: skip
"""Columns of answers to rows and questions: the fields of core.schemas.evaluation.TaskAnswer."""


def answers_parquet(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write the raw answers of all models in their order. An existing file is overwritten."""
    _write((answer for each in evaluations for answer in each.answers), ANSWERS, path)


def task_answers_parquet(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write the answers of all models to rows and questions, in their order. An existing file is overwritten."""
    _write((answer for each in evaluations for answer in each.tasks), TASK_ANSWERS, path)


def _write(rows: Iterator[Answer] | Iterator[TaskAnswer], schema: pa.Schema, path: Path) -> None:
    with ParquetWriter(path, schema, compression="zstd") as writer:
        while group := [row.model_dump() for row in islice(rows, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
