"""What the tests of core.data share: a way to write a file, and a small real tokenizer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<pad>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
]
TEXT = ["The doctor said: take two pills a day.", "What is 3 + 4? The answer is 7.", "user assistant system model"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], Path]:
    """Write a dataset file whose name says nothing of its format."""

    def _write(content: bytes | str) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    """A byte-level BPE with every byte in its vocabulary, fit on a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return tokenizer


@pytest.fixture
def make_tokenizer(bpe: Tokenizer) -> Callable[..., PreTrainedTokenizerFast]:
    """A tokenizer with a chat template and an end of sequence."""

    def _make(template: str | None, *, eos: str | None = "</s>", bos: str | None = None) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(bpe.to_str()),
            pad_token="<pad>",
            eos_token=eos,
            bos_token=bos,
            chat_template=template,
            clean_up_tokenization_spaces=False,
        )

    return _make


def spaced(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space before every text, as those of Llama 2 do."""
    vocab = {"<unk>": 0, "</s>": 1, "▁": 2, **{chr(code): code for code in range(3, 127)}}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", chat_template=template
    )
