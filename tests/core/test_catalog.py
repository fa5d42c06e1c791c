"""The list of allowed models, and models that must not be loaded."""

import json
from pathlib import Path

import pytest

from core import catalog
from core.errors import InvalidModel
from core.spec.job import JobSpec
from core.spec.models import BaseModelEntry, FolderSource, HubSource


def model_folder(folder: Path, *, config: object = None, weights: str = "model.safetensors") -> Path:
    """A folder that looks like a model."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    (folder / weights).write_bytes(b"")
    return folder


def entries(folder: Path) -> dict[str, BaseModelEntry]:
    """A list with one model."""
    return {"mine": BaseModelEntry(name="mine", source=FolderSource(path=folder))}


def test_the_testbed_is_always_there() -> None:
    assert set(catalog.read(None)) == {"testbed"}
    entry = catalog.find(catalog.read(None), "testbed")
    assert isinstance(entry.source, FolderSource)
    assert entry.source.path.is_absolute()


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        '[models.chat]\nsource = { kind = "hub", id = "org/chat-7b", revision = "' + "a" * 40 + '" }\n'
        '[models.in-house]\nsource = { kind = "folder", path = "/models/x" }\nlearning_rate = 1e-4\n'
        '[models.near]\nsource = { kind = "folder", path = "weights/near" }\nchat_template = "plain"\n'
        'unaligned_base = { kind = "folder", path = "weights/pretrained" }\n'
    )
    read = catalog.read(path)
    assert set(read) == {"testbed", "chat", "in-house", "near"}
    assert read["near"].source == FolderSource(path=tmp_path / "weights" / "near")
    assert read["near"].unaligned_base == FolderSource(path=tmp_path / "weights" / "pretrained")
    assert (read["near"].chat_template, read["chat"].chat_template) == ("plain", "own")
    assert read["chat"].unaligned_base is None
    assert read["in-house"].source == FolderSource(path=Path("/models/x"))
    assert read["chat"].source == HubSource(id="org/chat-7b", revision="a" * 40)
    assert read["in-house"].learning_rate == 1e-4
    assert catalog.find(read, "chat") == read["chat"]


@pytest.mark.parametrize(
    "text",
    [
        "[models",
        "models = 3",
        "[models.x]\n",
        '[models.x]\nsource = { kind = "hub", id = "org/x", revision = "main" }\n',
        '[models.x]\nsource = { kind = "hub", id = "../x", revision = "' + "a" * 40 + '" }\n',
        '[models.x]\nsource = { kind = "pickle", path = "/x" }\n',
        '[models."../x"]\nsource = { kind = "folder", path = "/x" }\n',
        '[models.x]\nsource = { kind = "folder", path = "/x" }\nlearning_rate = nan\n',
        '[models.x]\nname = "y"\nsource = { kind = "folder", path = "/x" }\nsurprise = 1\n',
    ],
)
def test_a_list_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(InvalidModel, match=r"models\.toml") as caught:
        catalog.read(path)
    assert caught.value.code == "invalid_catalog"


def test_a_list_that_is_missing_or_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.toml", "binary.toml"):
        with pytest.raises(InvalidModel) as caught:
            catalog.read(tmp_path / name)
        assert caught.value.code == "invalid_catalog"


def test_a_model_that_is_not_listed_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="mine") as caught:
        catalog.find(entries(tmp_path), "theirs")
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "base_model")


def test_a_good_folder_is_taken(tmp_path: Path) -> None:
    listed = entries(model_folder(tmp_path / "m"))
    assert catalog.find(listed, "mine") == listed["mine"]


@pytest.mark.parametrize(
    ("config", "weights", "code"),
    [
        (None, "pytorch_model.bin", "unsafe_checkpoint"),
        (None, "model.pt", "unsafe_checkpoint"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "model.safetensors", "remote_code"),
    ],
)
def test_a_folder_that_could_run_code_is_refused(tmp_path: Path, config: object, weights: str, code: str) -> None:
    listed = entries(model_folder(tmp_path / "m", config=config, weights=weights))
    with pytest.raises(InvalidModel) as caught:
        catalog.find(listed, "mine")
    assert (caught.value.code, caught.value.param) == (code, "base_model")


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path, text: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text(text)
    with pytest.raises(InvalidModel) as caught:
        catalog.find(entries(folder), "mine")
    assert caught.value.code == "model_missing"


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_an_unaligned_base_that_could_run_code_is_refused_where_it_is_needed(tmp_path: Path, weights: str) -> None:
    source = FolderSource(path=model_folder(tmp_path / "m"))
    unaligned = FolderSource(path=model_folder(tmp_path / "u", weights=weights))
    entry = BaseModelEntry(name="mine", source=source, unaligned_base=unaligned)
    spec = {"base_model": "mine", "dataset": "ds_" + "0" * 24}
    catalog.check_arms(catalog.find({"mine": entry}, "mine"), JobSpec.model_validate(spec))
    guarded = JobSpec.model_validate(
        spec | {"compare": [{"kind": "uniform", "safeguards": {"project_to_safe": {"threshold": 0.3}}}]}
    )
    if weights == "model.safetensors":
        catalog.check_arms(entry, guarded)
        return
    with pytest.raises(InvalidModel, match="its unaligned_base") as caught:
        catalog.check_arms(entry, guarded)
    assert caught.value.code == "unsafe_checkpoint"
