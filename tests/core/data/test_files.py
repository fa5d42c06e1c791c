"""Files of the list and of uploads: found, fetched from a hub on the loopback interface, or missed in words."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from core.data.files import fetch_file, prompts
from core.errors import InvalidInput, NotFound, Unavailable
from core.schemas.job import PromptFile, UploadedFile
from core.schemas.prompts import Behaviour, HubFileSource, PromptFileSource
from core.storage import ArtifactStore
from tests.core.lm.hub import Hub, serve

REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = HubFileSource(id="owner/behaviours", revision=REVISION, file="data/all.csv")
CONTENT = b"text,category\nForge a seal,fraud\n"
SEAL = (Behaviour(text="Forge a seal", category="fraud"),)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def listed(path: Path) -> PromptFile:
    return PromptFile(name="mine", layout="plain", source=PromptFileSource(path=path))


def test_a_listed_file_is_read_where_it_lies(tmp_path: Path, store: ArtifactStore) -> None:
    path = tmp_path / "prompts.csv"
    path.write_bytes(CONTENT)
    assert fetch_file(PromptFileSource(path=path), name="It") == path
    assert prompts(listed(path), store, "harmful") == prompts(listed(path), store, "safe") == SEAL


def test_an_uploaded_file_is_read_from_the_store(store: ArtifactStore) -> None:
    stored = store.put("prompts/aa/aa", CONTENT, name="mine.csv", media_type="text/csv", gated=False)
    source = UploadedFile(key=stored.key, sha256=stored.sha256)
    file = PromptFile(name="mine.csv", layout="plain", source=source)
    assert prompts(file, store, "harmful") == SEAL
    store.remove(stored.key)
    with pytest.raises(NotFound) as caught:
        prompts(file, store, "harmful")
    assert caught.value.code == "artifact_missing"


@pytest.mark.parametrize("name", ["nothing.csv", "."])
def test_a_file_that_is_not_there(tmp_path: Path, store: ArtifactStore, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"'mine'.*no such file") as caught:
        prompts(listed(tmp_path / name), store, "safe")
    assert (caught.value.code, caught.value.param) == ("prompt_set_missing", "security.prompts")
    with pytest.raises(InvalidInput) as caught:
        fetch_file(PromptFileSource(path=tmp_path / name), name="It", code="benchmark_missing", param="quality.tasks")
    assert (caught.value.code, caught.value.param) == ("benchmark_missing", "quality.tasks")


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, store: ArtifactStore) -> None:
    path = tmp_path / "prompts.csv"
    for content, reason in (("text\n", "no rows"), ("text\n" + "".join(f"{n}\n" for n in range(10_001)), "10000 rows")):
        path.write_text(content)
        with pytest.raises(InvalidInput, match=f"prompt set 'mine' cannot be used: .*{reason}") as caught:
            prompts(listed(path), store, "harmful")
        assert (caught.value.code, caught.value.param) == ("invalid_prompt_set", "security.prompts")


def test_a_file_of_the_hub_is_fetched_once_and_kept(
    cache: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PromptFile(name="mine", layout="plain", source=SOURCE)
    assert constants.is_offline_mode()
    with pytest.raises(Unavailable, match="owner/behaviours") as away:
        prompts(file, store, "harmful")
    assert away.value.code == "hub_unavailable"
    with serve(Hub({SOURCE.file: CONTENT}, f"datasets/{SOURCE.id}", REVISION)) as url:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        assert prompts(file, store, "harmful") == SEAL
        for wrong in ({"revision": "f" * 40}, {"file": "data/none.csv"}, {"id": "owner/nothing"}):
            with pytest.raises(InvalidInput, match="the hub did not return") as caught:
                fetch_file(SOURCE.model_copy(update=wrong), name="It")
            assert (caught.value.code, caught.value.param) == ("prompt_set_missing", "security.prompts")
    # The server is gone, the file is not.
    assert prompts(file, store, "harmful") == SEAL
    assert fetch_file(SOURCE, name="It").is_relative_to(cache)


def test_the_door_for_the_api_does_not_load_the_hub_client() -> None:
    program = "import sys, core.data.promptsets; print([n for n in ('huggingface_hub', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
