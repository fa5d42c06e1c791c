"""Texts of models that think: marks survive decoding, and prompts that open the thinking are visible in the text."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from core.lm.generate import answer
from core.lm.load import BaseModel
from core.lm.prompts import find_open_thinking
from core.lm.texts import TextDecoder
from core.schemas.data import Message
from core.thinking import split_thinking
from tests.core.helpers import ignore, user_turns
from tests.core.thinkers import REFUSAL, THOUGHT, load_thinker, make_thinker, make_tokenizer

QUESTION = user_turns("How do I pick a lock?")
LONG = 64


def decoded(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return TextDecoder(tokenizer).decode(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("opening", "closing"), [("<think>", "</think>"), ("[THINK]", "[/THINK]")])
def test_marks_survive_whether_or_not_they_are_special_tokens(opening: str, closing: str, special: bool) -> None:
    tokenizer = make_tokenizer(opening, closing, special=special)
    text = f"{opening}{THOUGHT}{closing}{REFUSAL}"
    assert decoded(tokenizer, f"{text}<|end|>") == text


def test_channels_survive_and_other_special_tokens_do_not() -> None:
    tokenizer = make_tokenizer("<|channel|>", "<|message|>", "<|start|>", "<|return|>", special=True)
    text = f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{REFUSAL}"
    found = decoded(tokenizer, f"{text}<|return|>")
    assert found == text
    assert split_thinking(found).answer == REFUSAL


def test_a_text_without_marks_is_decoded_as_ever() -> None:
    tokenizer = make_tokenizer("[THINK]", "[/THINK]", "<|start|>", special=True)
    ids = tokenizer("<|start|>Hello, it's me .<|end|>", add_special_tokens=False)["input_ids"]
    assert TextDecoder(tokenizer).decode(ids) == str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def test_the_text_of_an_answer_contains_its_thinking(tmp_path: Path) -> None:
    base = load_thinker(make_thinker(tmp_path))
    (text,) = answer(base, base.model, QUESTION, max_new_tokens=LONG, on_progress=ignore)
    assert text == f"<think>{THOUGHT}</think>\n{REFUSAL}"
    (short,) = answer(base, base.model, QUESTION, max_new_tokens=6, on_progress=ignore)
    assert short is not None
    assert split_thinking(short).cut


def opened(folder: Path, said: str) -> BaseModel:
    return load_thinker(make_thinker(folder, said, prompt_end="<think>"))


def test_a_text_begins_with_what_its_prompt_opens(tmp_path: Path) -> None:
    base = opened(tmp_path, f"{THOUGHT}</think>\n{REFUSAL}")
    (text,) = answer(base, base.model, QUESTION, max_new_tokens=LONG, on_progress=ignore)
    assert text == f"<think>\n{THOUGHT}</think>\n{REFUSAL}"
    (short,) = answer(base, base.model, QUESTION, max_new_tokens=6, on_progress=ignore)
    assert short is not None
    assert short.startswith("<think>\nThe harm")
    assert split_thinking(short).cut


def test_a_complete_answer_without_thinking_is_an_answer_although_the_prompt_opens_it(tmp_path: Path) -> None:
    base = opened(tmp_path, REFUSAL)
    assert answer(base, base.model, QUESTION, max_new_tokens=LONG, on_progress=ignore) == [REFUSAL]


def test_early_stops_see_the_thinking_as_open_until_it_is_closed(tmp_path: Path) -> None:
    base = opened(tmp_path, f"{THOUGHT}</think>\n{REFUSAL}")
    seen: list[str] = []

    def stop(_index: int, text: str) -> bool:
        seen.append(text)
        return False

    answer(base, base.model, QUESTION, max_new_tokens=LONG, on_progress=ignore, early_stop=stop)
    assert seen
    assert all(text.startswith("<think>\n") for text in seen)


@pytest.mark.parametrize(
    ("prompt_end", "begun", "expected"),
    [
        ("", None, ""),
        ("", "Sure, here", ""),
        ("", "<think>Sure,", "<think>"),
        ("", "<think>Sure.</think>Here", ""),
        ("<think>\n", None, "<think>"),
        ("<think>\n", "Sure, here", "<think>"),
        ("<think>\n", "I comply.</think>\nHere", ""),
        ("<think>\n\n</think>\n\n", None, ""),
        ("[THINK]", None, "[THINK]"),
    ],
)
def test_the_prompt_shows_whether_the_thinking_is_open(prompt_end: str, begun: str | None, expected: str) -> None:
    tokenizer = make_tokenizer(prompt_end=prompt_end)
    turns: Sequence[Message] = user_turns("A question about <think>")[0]
    if begun is not None:
        turns = (*turns, Message(role="assistant", content=begun))
    assert find_open_thinking(tokenizer, turns) == expected
