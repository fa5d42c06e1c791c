"""Models that always say the same, with their thinking: one step of a table decides each token from the one before.

They are real models in real folders, without any training: embeddings are one-hot, layers add nothing, and the head is
the table. Every token of what they say must occur once in it. A prompt may end with any other token.
"""

from pathlib import Path

import torch
from transformers import AddedToken, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from core.lm.load import BaseModel, load
from core.schemas.models import BaseModelEntry, FolderSource
from testbed import MODEL_DIR

THOUGHT = "The harm wants: help is from this yes"
REFUSAL = "I'm sorry, but I can't do that."
TURN = "<|assistant|>"


def make_tokenizer(*marks: str, special: bool = False, prompt_end: str = "") -> PreTrainedTokenizerBase:
    """The testbed's tokenizer with more tokens, and `prompt_end` after each prompt."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    assert tokenizer is not None
    tokenizer.add_tokens(
        [AddedToken(mark, normalized=False, special=special) for mark in marks], special_tokens=special
    )
    tokenizer.chat_template = str(tokenizer.chat_template).replace(TURN, TURN + prompt_end.replace("\n", "\\n"))
    return tokenizer


def make_thinker(
    folder: Path,
    said: str = f"<think>{THOUGHT}</think>\n{REFUSAL}",
    *,
    marks: tuple[str, ...] = ("<think>", "</think>"),
    special: bool = False,
    prompt_end: str = "",
) -> BaseModelEntry:
    """Write the folder of a model that says `said` to everything, and return its entry in the list of models.

    `marks` are added to the tokenizer, as special tokens if `special`. `prompt_end` is written after each prompt.
    """
    tokenizer = make_tokenizer(*marks, special=special, prompt_end=prompt_end)
    ids = [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert len(set(ids)) == len(ids), f"a token occurs twice: {tokenizer.convert_ids_to_tokens(ids)}"
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    following = torch.full((size,), ids[0])
    following[ids[:-1]] = torch.tensor(ids[1:])
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        model.lm_head.weight.zero_()
        model.lm_head.weight[following, torch.arange(size)] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BaseModelEntry(name="thinker", source=FolderSource(path=folder))


def load_thinker(entry: BaseModelEntry) -> BaseModel:
    """The model of `make_thinker` in memory."""
    return load(entry, torch.device("cpu"))
