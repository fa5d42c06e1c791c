"""GGUF files for tests: a tiny random Llama with the testbed's tokenizer, written as llama.cpp writes it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.schemas.models import BaseModelEntry, GgufSource

_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
Change = Callable[[GGUFWriter], object]


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    change: Change = lambda _writer: None,
    split: str = "smollm",
    leave_out: str = "",
) -> Path:
    """Write a Llama. `change` adds to the metadata, `split` is how the tokenizer cuts text, `leave_out` is a tensor."""
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, split)
    change(writer)
    for full_name, value in model.state_dict().items():
        name = full_name
        tensor: NDArray[np.float32] = value.float().numpy()
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        for part, heads in (("attn_q", config.num_attention_heads), ("attn_k", config.num_key_value_heads)):
            if part in name:  # llama.cpp rotates neighbours, transformers halves
                halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
                tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        if name != leave_out:
            writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, split: str) -> None:
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.added_tokens_decoder
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(names)
    writer.add_token_types([TokenType.CONTROL if vocabulary[name] in added else TokenType.NORMAL for name in names])
    writer.add_token_merges(_merges(tokenizer))
    writer.add_eos_token_id(vocabulary[str(tokenizer.eos_token)])
    writer.add_pad_token_id(vocabulary[str(tokenizer.pad_token)])
    writer.add_chat_template(str(tokenizer.chat_template))


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The merges of a byte-level tokenizer, as `a b`."""
    listed = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in listed]


def entry(*paths: Path, cache: Path, **fields: object) -> BaseModelEntry:
    source = GgufSource.model_validate({"paths": paths, "cache": cache} | fields)
    return BaseModelEntry(name="small", source=source)
