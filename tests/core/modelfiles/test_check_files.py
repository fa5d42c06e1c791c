"""Which model folders are rejected by their files alone, with which code, and that messages show no path."""

import json
import os
from pathlib import Path

import pytest

from core.errors import InvalidModel
from core.modelfiles import check_files
from core.modelfiles.config import CAUSAL_MODELS
from tests.core.modelfiles.folders import (
    CONFIG,
    ROWS,
    TENSORS,
    TOKENIZER,
    WIDTH,
    Change,
    both,
    edit,
    model_folder,
    quantised,
    remove,
    shards,
    tensors,
    vocabulary,
    write,
)
from tests.core.modelfiles.spoilt import CODES, POINTER, SHARD, UP


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "secret-place")


@pytest.mark.parametrize(
    ("code", "spoil"),
    [pytest.param(code, spoil, id=f"{code}: {name}") for code, cases in CODES.items() for name, spoil in cases],
)
def test_a_folder_that_cannot_be_tuned(folder: Path, code: str, spoil: Change) -> None:
    check_files("mine", folder)
    spoil(folder)
    with pytest.raises(InvalidModel) as caught:
        check_files("mine", folder)
    assert (caught.value.code, caught.value.param) == (code, "base_model")
    assert caught.value.message.startswith("The base model 'mine' ")
    assert caught.value.message.endswith(".")
    assert "secret-place" not in caught.value.message
    assert str(folder.parent) not in caught.value.message


def hub_cache(folder: Path) -> None:
    """The layout of a hub cache: the files of a snapshot are links to blobs."""
    blob = folder.parent.parent / "blobs" / "abc"
    blob.parent.mkdir()
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(shards({"weight_map": dict.fromkeys(TENSORS, SHARD)}, SHARD), id="shards"),
        pytest.param(edit("config.json", model_type="phi3", auto_map={"AutoConfig": "own.C"}), id="code is not needed"),
        pytest.param(edit("config.json", architectures=...), id="no architectures"),
        pytest.param(edit("config.json", quantization_config=None), id="not quantised"),
        pytest.param(edit("config.json", pad_token_id=ROWS, bos_token_id=-1, torch_dtype="odd"), id="never used"),
        pytest.param(tensors(**{"model.layers.0.attn.bias": ("BOOL", (1, 4, 4))}), id="a mask"),
        pytest.param(vocabulary((ROWS, "<pad>", True), pad_token="<pad>"), id="a pad token without a row"),
        pytest.param(vocabulary((ROWS, "<image>", True)), id="a placeholder that nothing writes"),
        pytest.param(
            edit("tokenizer_config.json", chat_template=[
                {"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}
            ]),
            id="named templates",
        ),
        pytest.param(
            both(edit("tokenizer_config.json", chat_template=5), write("chat_template.jinja", "a")), id="jinja first"
        ),
        pytest.param(both(remove("tokenizer.json"), write("tokenizer.model", b"sentencepiece")), id="sentencepiece"),
        pytest.param(write("consolidated.safetensors", b"another layout"), id="files of other tools"),
        pytest.param(tensors(**{f"{UP}.weight": ("F64", (4, WIDTH))}), id="double precision"),
        pytest.param(edit("tokenizer_config.json", model_max_length=1e30), id="no maximum length"),
        pytest.param(write("README.md", POINTER), id="files that are not read"),
    ],
)  # fmt: skip
def test_a_folder_that_can_be_tuned(folder: Path, change: Change) -> None:
    change(folder)
    check_files("mine", folder)


def test_a_model_whose_weights_alone_are_used_needs_no_tokenizer(folder: Path) -> None:
    remove("tokenizer.json", "tokenizer_config.json")(folder)
    check_files("mine", folder, tokenizer=False)
    with pytest.raises(InvalidModel):
        check_files("mine", folder)
    remove("model.safetensors")(folder)
    with pytest.raises(InvalidModel) as caught:
        check_files("mine", folder, tokenizer=False)
    assert caught.value.code == "weights_incomplete"


def test_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    folder = model_folder(tmp_path / "snapshots" / "revision")
    hub_cache(folder)
    check_files("mine", folder)


def test_links_within_a_folder_are_followed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    check_files("mine", folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every file")
def test_a_file_that_may_not_be_opened(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    with pytest.raises(InvalidModel, match=r"config\.json that cannot be opened") as caught:
        check_files("mine", folder)
    assert caught.value.code == "model_unreadable"


def test_a_folder_is_checked_again_once_a_file_changes(folder: Path) -> None:
    check_files("mine", folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel):
        check_files("mine", folder)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    check_files("mine", folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (quantised(quant_method="gptq"), r"quantised already \(gptq\)\. Tune the model that it was made from"),
        (
            quantised(quant_method="mxfp4"),
            r"Mxfp4Config\(dequantize=True\)\), then save_pretrained\(\.\.\., save_original_format=False\)",
        ),
        (vocabulary((ROWS + 1, "<x>", False)), rf"has {ROWS} token embeddings, .*'<x>' \({ROWS + 1}\)"),
        (edit("config.json", hidden_size=48), f"hidden size is 48 there, .* the shape {ROWS} x {WIDTH}"),
        (write("model.safetensors", POINTER), "git lfs pull"),
        (shards({"weight_map": {"a": SHARD, "b": "c.safetensors", "d": "e.safetensors"}}, SHARD), "c.* and 1 more"),
    ],
)
def test_messages_name_the_cause_and_what_helps(folder: Path, spoil: Change, message: str) -> None:
    spoil(folder)
    with pytest.raises(InvalidModel, match=message):
        check_files("mine", folder)


def test_the_listed_kinds_are_those_of_transformers() -> None:
    """If it fails: write `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`, sorted, to core/modelfiles/causal_models.json."""
    modeling_auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    assert dict(CAUSAL_MODELS) == dict(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert CONFIG["model_type"] in CAUSAL_MODELS
