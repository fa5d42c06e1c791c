"""Changes that make a model folder unusable, by the code that reports them."""

from tests.core.modelfiles.folders import (
    ROWS,
    TENSORS,
    Change,
    both,
    cut,
    edit,
    link,
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
