"""Datasets are named by what is in them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from core.db import datasets
from core.db.session import Sessions, transaction
from core.errors import NotFound
from core.schemas.data import ColumnMap
from tests.core.db.helpers import SUMMARY, add_dataset

COLUMNS = ColumnMap(prompt="question", completion="answer")


def test_the_same_upload_is_the_same_row(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        first, new = add_dataset(session, name="first.jsonl")
        again, new_again = add_dataset(session, name="second.jsonl")
        mapped, new_mapped = add_dataset(session, columns=COLUMNS)
        other, new_other = add_dataset(session, digest="1" * 64)
    assert (new, new_again, new_mapped, new_other) == (True, False, True, True)
    assert again.id == first.id
    assert again.name == "first.jsonl"
    assert len({first.id, mapped.id, other.id}) == 3


def test_the_same_upload_at_once_is_one_row(sessions: Sessions) -> None:
    def upload(_time: int) -> tuple[str, bool]:
        with transaction(sessions) as session:
            row, new = add_dataset(session)
            return row.id, new

    with ThreadPoolExecutor(8) as pool:
        uploads = list(pool.map(upload, range(16)))
    assert len({dataset_id for dataset_id, _ in uploads}) == 1
    assert [new for _, new in uploads].count(True) == 1


def test_a_ref_says_all_that_training_needs(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        row, _ = add_dataset(session, columns=COLUMNS)
        ref = datasets.ref(datasets.get(session, row.id))
    assert (ref.id, ref.key, ref.sha256, ref.columns, ref.summary) == (row.id, "uploads/d", "0" * 64, COLUMNS, SUMMARY)


def test_no_such_dataset_names_the_field(sessions: Sessions) -> None:
    with transaction(sessions) as session, pytest.raises(NotFound) as caught:
        datasets.get(session, "ds_" + "0" * 24, param="validation_dataset")
    assert caught.value.param == "validation_dataset"
