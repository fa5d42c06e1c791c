"""Tests of core.modelfiles.state: what changes the digests of a model, and what does not."""

from pathlib import Path

from core.catalog import TESTBED
from core.modelfiles.state import entry_digest, files_digest
from core.schemas.models import FolderSource, GgufSource, HubSource
from tests.core.modelfiles.folders import edit, model_folder


def test_an_entry_is_the_same_until_something_but_its_description_changes() -> None:
    first = entry_digest(TESTBED)
    assert entry_digest(TESTBED.model_copy(update={"description": "Another."})) == first
    assert entry_digest(TESTBED.model_copy(update={"learning_rate": 1.0})) != first
    assert entry_digest(TESTBED.model_copy(update={"source": FolderSource(path=Path("elsewhere"))})) != first


def test_a_folder_is_the_same_wherever_it_is_until_a_file_changes(tmp_path: Path) -> None:
    one, other = model_folder(tmp_path / "one"), model_folder(tmp_path / "other")
    first = files_digest(FolderSource(path=one))
    assert first is not None
    assert files_digest(FolderSource(path=other)) == first
    edit("config.json", eos_token_id=0)(other)
    assert files_digest(FolderSource(path=other)) != first
    (one / "model.safetensors").write_bytes(b"x" * 100_000)
    assert files_digest(FolderSource(path=one)) != first


def test_files_that_are_elsewhere_have_no_digest(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    gguf = GgufSource(paths=(file,), cache=tmp_path)
    assert files_digest(gguf) is None
    file.write_bytes(b"GGUF")
    assert files_digest(gguf) is not None
    assert files_digest(FolderSource(path=tmp_path / "missing")) is None
    assert files_digest(HubSource(id="org/model", revision="a" * 40)) is None
