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
    cut,
    edit,
    link,
    model_folder,
    pipe,
    quantised,
    remove,
    safetensors,
    shards,
    tensors,
    vocabulary,
    write,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 123456789\n"
SHARD = "model-00001-of-00002.safetensors"
UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "secret-place")


BEYOND = (ROWS, "<beyond>", True)
CODES: dict[str, list[tuple[str, Change]]] = {
    "model_missing": [("config", remove("config.json"))],
    "model_unreadable": [
        ("config empty", write("config.json", "")),
        ("config cut off", write("config.json", "{")),
        ("config binary", write("config.json", b"\xff\xfe\x00")),
        ("config a list", write("config.json", "[]")),
        ("config nested", write("config.json", "[" * 100_000)),
        ("config a link to nothing", link("config.json", "gone")),
        ("config huge", write("config.json", '{"a": "' + "a" * (5 << 20) + '"}')),
        ("config no file", both(remove("config.json"), lambda folder: (folder / "config.json").mkdir())),
        ("pipe", pipe),
        ("weights garbage", write("model.safetensors", b"no tensors" * 100)),
        ("weights header no object", write("model.safetensors", b"\x02" + bytes(7) + b"[]")),
        ("weights header of wrong types", write("model.safetensors", b"\x09" + bytes(7) + b'{"a": {}}')),
        ("index garbage", shards([], SHARD)),
        ("tokenizer garbage", write("tokenizer.json", "{]")),
        ("maximum length a text", edit("tokenizer_config.json", model_max_length="long")),
    ],
    "lfs_pointer": [
        ("weights", write("model.safetensors", POINTER)),
        ("tokenizer", write("tokenizer.json", POINTER)),
        ("config", write("config.json", POINTER)),
    ],
    "link_outside_folder": [
        ("weights", link("model.safetensors", "elsewhere")),
        ("tokenizer", link("tokenizer.json", "elsewhere")),
        ("index", shards({"weight_map": {"lm_head.weight": "../model.safetensors"}}, SHARD)),
    ],
    "unsafe_checkpoint": [
        ("bin", both(remove("model.safetensors"), write("pytorch_model.bin", b""))),
        ("pt", both(remove("model.safetensors"), write("model.pt", b""))),
    ],
    "gguf_unsupported": [
        ("with config", both(remove("model.safetensors"), write("m-q4.gguf", b"GGUF"))),
        ("alone", both(remove("model.safetensors", "config.json", "tokenizer.json"), write("m.gguf", b"GGUF"))),
    ],
    "remote_code": [
        ("unknown type", edit("config.json", model_type="own", auto_map={"AutoModelForCausalLM": "own.Model"})),
        ("no type", edit("config.json", model_type=..., auto_map={"AutoModelForCausalLM": "own.Model"})),
    ],
    "not_causal_lm": [
        ("encoder", edit("config.json", model_type="bert", architectures=["BertForMaskedLM"])),
        ("classifier", edit("config.json", architectures=["LlamaForSequenceClassification"])),
        ("headless", edit("config.json", architectures=["LlamaModel"])),
        ("seq2seq", edit("config.json", model_type="t5", architectures=["T5ForConditionalGeneration"])),
        ("seq2seq decoder", edit("config.json", model_type="bart", architectures=..., is_encoder_decoder=True)),
        ("vision", edit("config.json", model_type="vit", architectures=["ViTForImageClassification"])),
        ("vision language", edit("config.json", model_type="llava", architectures=["LlavaForConditionalGeneration"])),
        ("unknown", edit("config.json", model_type="nobody-knows-this")),
        ("no type", edit("config.json", model_type=...)),
        ("type a number", edit("config.json", model_type=3)),
    ],
    "quantized_base": [
        ("gptq", quantised(quant_method="gptq", bits=4)),
        ("awq", quantised(quant_method="awq", bits=4)),
        ("bitsandbytes", quantised(quant_method="bitsandbytes", load_in_4bit=True)),
        ("bitsandbytes of old", quantised(load_in_8bit=True)),
        ("compressed-tensors", quantised(quant_method="compressed-tensors", config_groups={})),
        ("hqq", quantised(quant_method="hqq", quant_config={})),
        ("fp8", quantised(quant_method="fp8", activation_scheme="dynamic")),
        ("mxfp4", quantised(quant_method="mxfp4")),
        ("method unknown", quantised(bits=3)),
        ("no object", edit("config.json", quantization_config="q4")),
        ("in the text part", edit("config.json", text_config={"quantization_config": {"quant_method": "fp8"}})),
        ("gptq weights", tensors(**{f"{UP}.qweight": ("I32", (4, 4)), f"{UP}.scales": ("F16", (4, 4))})),
        ("packed weights", tensors(**{f"{UP}.weight_packed": ("I32", (4, 4))})),
        ("8-bit integers", tensors(**{f"{UP}.weight": ("I8", (4, 4))})),
        ("fp8 weights", tensors(**{f"{UP}.weight": ("F8_E4M3", (4, 4))})),
        ("mxfp4 weights", tensors(**{"model.layers.0.mlp.experts.down_proj_blocks": ("U8", (4, 4, 4))})),
    ],
    "adapter_in_folder": [
        ("beside", both(write("adapter_config.json", "{}"), write("adapter_model.safetensors", safetensors({})))),
        ("without weights", write("adapter_config.json", "{}")),
        ("without configuration", write("adapter_model.bin", b"")),
        ("alone", both(remove("config.json", "model.safetensors"), write("adapter_config.json", "{}"))),
    ],
    "weights_incomplete": [
        ("none", remove("model.safetensors")),
        ("empty", write("model.safetensors", b"")),
        ("a few bytes", cut("model.safetensors", 5)),
        ("in the header", cut("model.safetensors", 50)),
        ("in the data", cut("model.safetensors", len(safetensors(TENSORS)) - 1)),
        ("dangling link", link("model.safetensors", "gone")),
        ("other name", both(remove("model.safetensors"), write("weights.safetensors", safetensors(TENSORS)))),
        ("no index", both(remove("model.safetensors"), write(SHARD, safetensors(TENSORS)))),
        ("missing shard", shards({"weight_map": {"a": SHARD, "b": "model-00002-of-00002.safetensors"}}, SHARD)),
        ("missing tensor", shards({"weight_map": {"lm_head.weight": SHARD, "other": SHARD}}, SHARD)),
        ("index without a map", shards({"metadata": {}}, SHARD)),
    ],
    "weights_ambiguous": [
        (
            "two sets",
            both(shards({"weight_map": dict.fromkeys(TENSORS, SHARD)}, SHARD), write("model.safetensors", b"")),
        ),
        ("distributed", write("shard-00000-model-00000-of-00001.safetensors", b"")),
        ("named in config", edit("config.json", transformers_weights="other.safetensors")),
    ],
    "weights_mismatch": [
        ("vocabulary", edit("config.json", vocab_size=ROWS + 1)),
        ("width", edit("config.json", hidden_size=48)),
    ],
    "tokenizer_missing": [("none", remove("tokenizer.json"))],
    "tokenizer_unreadable": [
        ("newer", edit("tokenizer.json", model={"type": "SuperBPE", "vocab": {}})),
        ("no model", edit("tokenizer.json", model=...)),
        ("empty", write("tokenizer.json", '{"model": {}}')),
    ],
    "tokens_without_embedding": [
        ("in the template", vocabulary(BEYOND, template="<beyond>{{ messages }}")),
        ("end of sequence", vocabulary(BEYOND, eos_token="<beyond>")),
        ("end of sequence as an object", vocabulary(BEYOND, eos_token={"content": "<beyond>"})),
        ("by its name", vocabulary(BEYOND, template="{{ bos_token }}", bos_token="<beyond>")),
        ("ordinary text", vocabulary((ROWS, "beyond", False))),
        ("in the vocabulary", edit("tokenizer.json", model={"type": "BPE", "vocab": {"a": ROWS}, "merges": []})),
        ("a long list", edit("tokenizer.json", model={"type": "Unigram", "vocab": [["a", 0.0]] * (ROWS + 1)})),
        (
            "in the settings",
            edit(
                "tokenizer_config.json",
                added_tokens_decoder={str(ROWS): {"content": "<beyond>", "special": True}},
                chat_template="<beyond>",
            ),
        ),
        (
            "in a named template",
            vocabulary(BEYOND, template=[{"name": "default", "template": "a"}, {"name": "b", "template": "<beyond>"}]),
        ),
    ],
    "token_out_of_range": [
        ("config", edit("config.json", eos_token_id=ROWS)),
        ("one of several", edit("config.json", eos_token_id=[1, ROWS])),
        ("generation", edit("generation_config.json", eos_token_id=10**6)),
    ],
    "chat_template_invalid": [
        ("number", edit("tokenizer_config.json", chat_template=5)),
        ("object", edit("tokenizer_config.json", chat_template={"default": "x"})),
        ("list of texts", edit("tokenizer_config.json", chat_template=["x"])),
        ("no default", edit("tokenizer_config.json", chat_template=[{"name": "tool_use", "template": "x"}])),
    ],
}


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
