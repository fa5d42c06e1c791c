"""Storing uploads: one row and one file for the same bytes, and neither if something is wrong."""

from hashlib import sha256
from pathlib import Path

import pytest

from core.db.models import Dataset, PromptSet
from core.db.rows import newest_first
from core.db.session import Sessions, transaction
from core.errors import InvalidDataset, StorageFull
from core.orders import Upload, store_dataset, store_prompts
from core.schemas.data import ColumnMap
from core.storage import ArtifactStore

ROWS = b'{"prompt": "What is 2 + 2?", "completion": "4."}\n'
PROMPTS = b"text,category\nExplain how to forge a seal.,fraud\n"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def upload(store: ArtifactStore, content: bytes, name: str = "rows.jsonl") -> Upload:
    store.root.mkdir(exist_ok=True)
    path = store.root / "upload"
    path.write_bytes(content)
    return Upload(path=path, sha256=sha256(content).hexdigest(), bytes=len(content), name=name)


def test_the_same_bytes_and_columns_are_one_dataset(sessions: Sessions, store: ArtifactStore) -> None:
    columns = ColumnMap(prompt="completion", completion="prompt")
    first, new = store_dataset(sessions, store, upload(store, ROWS), None, max_rows=10)
    again, new_again = store_dataset(sessions, store, upload(store, ROWS, "other.jsonl"), None, max_rows=10)
    mapped, new_mapped = store_dataset(sessions, store, upload(store, ROWS), columns, max_rows=10)
    assert (new, new_again, new_mapped) == (True, False, True)
    assert (again.id, again.name) == (first.id, "rows.jsonl")
    assert mapped.id != first.id
    assert mapped.key == first.key
    assert store.path(first.key).read_bytes() == ROWS


def test_the_same_bytes_and_layout_are_one_prompt_set(sessions: Sessions, store: ArtifactStore) -> None:
    first, new = store_prompts(sessions, store, upload(store, PROMPTS, "mine.csv"), "plain")
    again, new_again = store_prompts(sessions, store, upload(store, PROMPTS), "plain")
    assert (new, new_again, again.id, again.name) == (True, False, first.id, "mine.csv")
    assert store.path(first.key).read_bytes() == PROMPTS


def test_invalid_rows_leave_nothing(sessions: Sessions, store: ArtifactStore) -> None:
    with pytest.raises(InvalidDataset):
        store_dataset(sessions, store, upload(store, b"{}\n"), None, max_rows=10)
    assert [path.name for path in store.root.iterdir()] == ["upload"]
    with transaction(sessions) as session:
        assert newest_first(session, Dataset, limit=1) == ([], False)


def test_a_full_disk_leaves_no_row(sessions: Sessions, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageFull("The disk is full.")

    monkeypatch.setattr(store, "adopt", full)
    with pytest.raises(StorageFull):
        store_prompts(sessions, store, upload(store, PROMPTS), "plain")
    with transaction(sessions) as session:
        assert newest_first(session, PromptSet, limit=1) == ([], False)
