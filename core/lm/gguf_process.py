"""The process that converts a GGUF file: `python -m core.lm.gguf_process DTYPE FOLDER PATH...`. core.lm.gguf starts it.

It writes `FOLDER/model`: weights in safetensors, the configuration, the tokenizer and the chat template. With exit
status 1, the last line on stdout is a JSON array: a code, and the rest of the sentence that begins with the model's
name. Whatever transformers would drop or guess ends the conversion, because the model that is tuned would be another.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.integrations import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from core.errors import InvalidModel
from core.lm.reading import reading
from core.modelfiles.gguf import GgufHeader, open_joined, read_header
from core.modelfiles.reading import Problem
from core.schemas.models import BaseModelEntry, FolderSource
from core.storage.store import means_full

_FILE = "model.gguf"
_NAME = "model"
_NAMES = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}
"""Names of architectures in transformers, where they differ."""
_DIGITS_FIRST = frozenset({"smollm", "starcoder", "refact", "codeshell"})
"""Values of `tokenizer.ggml.pre` of tokenizers that cut digits from each other before they split words as GPT-2 does:
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp. transformers splits them as GPT-2 only."""
_COMPOSED = frozenset({"qwen2", "qwen35"})
"""Values of tokenizers that compose characters first (NFC), which transformers leaves out of what it reads."""
_AS_GPT2 = frozenset({"gpt-2", "phi-2", "olmo", "jina-es", "jina-de", "roberta-bpe", "exaone4", "mpt"})
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")
"""Settings that transformers may not read. They are harmless if they are the size of a head."""
_PROBES = (
    "In 1984,  12 of 300",
    "if x:\n    return  2\t# it's\r\n",
    " cafe\u0301 \u4e2d\u6587 \U0001f9a9",
    "<think>a</think>",
)
"""Texts that ways of splitting treat differently: digits, spaces, contractions, combining characters, tags."""
_PLAIN = ("rope.scaling.type", "vocab_size", "attention.causal")
"""Settings that core.modelfiles.gguf checks, or that say what every causal language model does."""


class Rejected(Exception):
    """The file cannot be converted: a code, and the rest of the sentence that begins with the model's name."""


def main() -> None:
    """Convert one file."""
    dtype, folder, *paths = sys.argv[1:]
    try:
        convert([Path(path) for path in paths], Path(folder), getattr(torch, dtype))
    except Rejected as error:
        _fail(*error.args)
    except Exception as error:
        if not means_full(error):
            raise
        _fail("storage_full", "")


def convert(paths: Sequence[Path], folder: Path, dtype: torch.dtype) -> None:
    """Convert a file, or its parts in order, into `folder / "model"`."""
    header = read_header(paths)
    if isinstance(header, Problem):
        raise Rejected(header.code, header.text)
    source, target = folder / "source", folder / "model"
    source.mkdir()
    if len(paths) == 1:
        (source / _FILE).symlink_to(paths[0])
    else:
        with open_joined(paths) as parts, (source / _FILE).open("wb") as whole:
            shutil.copyfileobj(parts, whole, 1 << 20)
    # `reading` words errors of libraries; the model's name is put in by the parent, which knows it.
    entry = BaseModelEntry(name=_NAME, source=FolderSource(path=source))
    try:
        with reading(entry, source):
            config = AutoConfig.from_pretrained(source, gguf_file=_FILE)
            _check_settings(header, config)
            tokenizer = _load_tokenizer(source, header)
            tokenizer.save_pretrained(target)
            _load_model(source, config, dtype).save_pretrained(target)
            check_saved(tokenizer, target)
    except InvalidModel as error:
        raise Rejected(error.code, error.message.removeprefix(f"The base model {_NAME!r} ")) from error
    shutil.rmtree(source)


def _load_model(source: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    model, found = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=_FILE,
        config=config,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    if missing := sorted(cast("Mapping[str, set[str]]", found)["missing_keys"]):
        raise Rejected(
            "weights_incomplete",
            f"has no {missing[0]} in its GGUF file, or transformers does not find it there. Use a complete file, or "
            "the model with safetensors weights.",
        )
    # transformers saves no model that it regards as quantised. This one is not any more.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _load_tokenizer(source: Path, header: GgufHeader) -> PreTrainedTokenizerFast:
    """The tokenizer as it is, whatever class transformers has for this type of model: the classes of models split text
    in their own way, and read a saved tokenizer by that."""
    kind, split = header.values.get("tokenizer.ggml.model"), header.values.get("tokenizer.ggml.pre")
    known = {*GGUF_PRE_TOKENIZER_SPLITS, *_DIGITS_FIRST, *_AS_GPT2}
    if kind == "gpt2" and split not in known:
        raise Rejected(
            "gguf_unsupported",
            f"has a tokenizer that splits text in the way {str(split)[:40]!r} (tokenizer.ggml.pre in its GGUF file), "
            "which is not known here: its text would become other tokens. Use the model with safetensors weights.",
        )
    made = AutoTokenizer.from_pretrained(source, gguf_file=_FILE)
    if not isinstance(made, PreTrainedTokenizerFast):
        raise Rejected("tokenizer_unreadable", "has a tokenizer in its GGUF file that transformers cannot read.")
    backend = made.backend_tokenizer
    if kind == "gpt2" and split in _DIGITS_FIRST:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if kind == "gpt2" and split in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=made.bos_token,
        eos_token=made.eos_token,
        unk_token=made.unk_token,
        pad_token=made.pad_token,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = made.chat_template
    return tokenizer


def check_saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Reject a tokenizer that transformers reads as another one, now that it is beside the model's config.json."""
    saved = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in _PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if saved is None or saved(text, add_special_tokens=False)["input_ids"] != ids:
            raise Rejected(
                "gguf_unsupported",
                "has a tokenizer in its GGUF file that transformers reads in another way for this type of model. Use "
                "the model with safetensors weights.",
            )


def _check_settings(header: GgufHeader, config: PretrainedConfig) -> None:
    """Reject a file with a setting that transformers does not read: the converted model would compute another thing."""
    architecture = header.architecture
    if architecture in GGUF_CONFIG_ARCHS:
        return  # newer code of transformers, which reads whatever these architectures have
    read = GGUF_CONFIG_MAPPING[_NAMES.get(architecture, architecture)]
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    for key, value in header.values.items():
        setting = key.removeprefix(f"{architecture}.")
        if setting == key or setting in _PLAIN or read.get(setting) is not None:
            continue
        if setting not in _HEAD_SIZES or value != head:
            raise Rejected(
                "gguf_unsupported",
                f"has the setting {key[:80]} = {str(value)[:40]} in its GGUF file, which transformers does not read: "
                "the converted model would compute something else. Use the model with safetensors weights.",
            )


def _fail(code: str, text: str) -> None:
    print(json.dumps([code, text]))  # noqa: T201 - the answer to the parent
    sys.exit(1)


if __name__ == "__main__":
    main()
