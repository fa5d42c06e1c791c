"""Writes raw answers with their judgements as Parquet, one row for each answer, for pandas, DuckDB and similar tools.

Rows are written in groups, so memory does not grow with the number of answers. Not here: answers as JSON lines
(core.pipeline.report), figures computed from them (core.attacks.count).
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from core.schemas.evaluation import Answer, Evaluation, TaskAnswer

_GROUP = 1000
"""Rows in memory at a time."""
_text, _count, _number = pa.string(), pa.int32(), pa.float64()
ANSWERS = pa.schema(
    [
        pa.field("run", _text, nullable=False),
        pa.field("suite", _text, nullable=False),
        pa.field("prompt", _count, nullable=False),
        pa.field("template", _text, nullable=False),
        pa.field("behaviour", _text, nullable=False),
        pa.field("category", _text),
        pa.field("sample", _count, nullable=False),
        pa.field("messages", pa.list_(pa.struct([("role", _text), ("content", _text)])), nullable=False),
        pa.field("answer", _text, nullable=False),
        pa.field("sent", pa.bool_(), nullable=False),
        pa.field(
            "judgements",
            pa.list_(
                pa.struct(
                    [
                        ("judge", _text),
                        ("verdict", _text),
                        ("harmfulness", _number),
                        ("score", _number),
                        ("reason", _text),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""Columns of raw answers: the fields of core.schemas.evaluation.Answer."""
TASK_ANSWERS = pa.schema(
    [
        pa.field("run", _text, nullable=False),
        pa.field("suite", _text, nullable=False),
        pa.field("metric", _text, nullable=False),
        pa.field("row", _count, nullable=False),
        pa.field("answer", _text, nullable=False),
        pa.field("reference", _text, nullable=False),
        pa.field("value", _number, nullable=False),
    ]
)
"""Columns of answers to rows and questions: the fields of core.schemas.evaluation.TaskAnswer."""


def answers_parquet(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write the raw answers of all models in their order. An existing file is overwritten."""
    _write((answer for each in evaluations for answer in each.answers), ANSWERS, path)


def task_answers_parquet(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write the answers of all models to rows and questions, in their order. An existing file is overwritten."""
    _write((answer for each in evaluations for answer in each.tasks), TASK_ANSWERS, path)


def _write(rows: Iterator[Answer] | Iterator[TaskAnswer], schema: pa.Schema, path: Path) -> None:
    with ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterator[Answer] | Iterator[TaskAnswer]) -> Iterator[list[dict[str, Any]]]:
    while group := [row.model_dump() for row in islice(rows, _GROUP)]:
        yield group
