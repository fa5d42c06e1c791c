"""Tokens that the model has no embedding for, and tokenizers and chat templates that cannot be read."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from core.errors import InvalidModel
from core.lm.load import load
from core.lm.reading import invalid, read_config
from core.lm.tokenizer import check_vocabulary, load_tokenizer
from core.modelfiles import check_files
from tests.core.helpers import VOCABULARY, logits, tiny
from tests.core.lm.models import CPU, Change, edit, entry

CHAT = "{% for m in messages %}{{ m.content }}{% endfor %}"


def added(*tokens: str, template: str | None = None, special: bool = True, **settings: object) -> Change:
    """Tokens added to the tokenizer and not to the model."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        entries = json.loads(path.read_text())["added_tokens"]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        new = [{"id": VOCABULARY + place, "content": token, **flags} for place, token in enumerate(tokens)]
        edit(path, added_tokens=[*entries, *new])
        edit(folder / "tokenizer_config.json", **settings)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(added("<|turn|>", template="<|turn|>" + CHAT), id="in the template"),
        pytest.param(added("<|x|>", "<|user|x|>", eos_token="<|x|>"), id="the end of sequence"),
        pytest.param(added("beyond", special=False), id="ordinary text"),
    ],
)
def test_tokens_without_an_embedding_are_rejected_by_the_files_and_after_loading(folder: Path, change: Change) -> None:
    change(folder)
    with pytest.raises(InvalidModel) as caught:
        check_files("small", folder)
    tokenizer = load_tokenizer(entry(folder), folder, read_config(entry(folder), folder))
    with pytest.raises(InvalidModel) as again:
        check_vocabulary(entry(folder), tokenizer, VOCABULARY)
    assert caught.value.code == again.value.code == "tokens_without_embedding"
    assert f"has {VOCABULARY} token embeddings" in again.value.message


def test_tokens_that_a_template_puts_together_are_found_by_rendering_it(folder: Path) -> None:
    template = "{% for m in messages %}{{ '<|' + m.role + '|new|>' + m.content }}{% endfor %}"
    added("<|user|new|>", template=template)(folder)
    check_files("small", folder)
    with pytest.raises(InvalidModel, match=r"<\|user\|new\|>") as caught:
        load(entry(folder), CPU)
    assert caught.value.code == "tokens_without_embedding"


def test_a_token_that_the_tokenizer_adds_itself_is_found_after_loading(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token="<|ends|>")
    with pytest.raises(InvalidModel, match=r"<\|ends\|>") as caught:
        load(entry(folder), CPU)
    assert caught.value.code == "tokens_without_embedding"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(added("[PAD]", pad_token="[PAD]"), id="padding"),
        pytest.param(added("<image>", pad_token=None), id="a placeholder that nothing writes"),
        pytest.param(added("<s>", bos_token="<s>", pad_token=None), id="a beginning that nothing writes"),
    ],
)
def test_tokens_that_never_occur_are_harmless(folder: Path, change: Change) -> None:
    change(folder)
    found = load(entry(folder), CPU)
    assert torch.equal(logits(found.model), logits(tiny("llama")))
    assert found.pad_id == found.tokenizer.eos_token_id


def test_rows_without_a_token_are_harmless(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token="<|pad|>")
    tokenizer = load_tokenizer(entry(folder), folder, read_config(entry(folder), folder))
    check_vocabulary(entry(folder), tokenizer, VOCABULARY)
    check_vocabulary(entry(folder), tokenizer, VOCABULARY + 64)


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "decoder"])
def test_a_tokenizer_of_a_newer_version(folder: Path, part: str) -> None:
    edit(folder / "tokenizer.json", **{part: {"type": "FromTheFuture"}})
    with pytest.raises(InvalidModel) as caught:
        load(entry(folder), CPU)
    assert caught.value.code == "tokenizer_unreadable"
    assert str(folder.parent) not in caught.value.message


@pytest.mark.parametrize("wrong", [5, {"default": 5}, {"tool_use": "x"}])
def test_a_chat_template_of_a_wrong_type(folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    tokenizer = load_tokenizer(entry(folder), folder, read_config(entry(folder), folder))
    tokenizer.chat_template = wrong

    def from_pretrained(*_args: object, **_options: object) -> PreTrainedTokenizerBase:
        return tokenizer

    monkeypatch.setattr("core.lm.tokenizer.AutoTokenizer", SimpleNamespace(from_pretrained=from_pretrained))
    with pytest.raises(InvalidModel) as caught:
        load_tokenizer(entry(folder), folder, read_config(entry(folder), folder))
    assert caught.value.code == "chat_template_invalid"


def test_errors_name_the_model() -> None:
    error = invalid(entry(Path("x")), "some_code", "is odd.")
    assert (error.code, error.message, error.param) == ("some_code", "The base model 'small' is odd.", "base_model")
